"""The command line: a thin skin over the API. Heavy packages load inside the commands."""
