"""Pictures for people: scans, vertebrae, samples."""
