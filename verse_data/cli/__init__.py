"""The command line: a thin layer over the API. Heavy packages are imported inside the commands."""
