"""Where files come from and go to: addresses, credentials, S3, folders, transfers."""
