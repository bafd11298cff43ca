"""HTTP: requests become commands and queries, outcomes and errors become replies."""
