"""The process: settings, composition, the command line, jobs, the embedded database."""
