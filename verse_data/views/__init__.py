"""Pictures for people: previews of scans."""
