"""The release in other people's formats."""
