"""What one name, row or file says: Pydantic models and file names. Pure."""
