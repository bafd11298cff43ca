"""The faces: HTTP, background jobs, the command line. They validate and pass on; none decides."""
