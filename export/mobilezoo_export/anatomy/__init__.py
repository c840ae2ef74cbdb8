"""What an exported file holds, read without running it: one reader per format, and findings that need no format."""
