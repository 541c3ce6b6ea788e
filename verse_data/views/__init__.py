"""What a person looks at: previews and reports."""
