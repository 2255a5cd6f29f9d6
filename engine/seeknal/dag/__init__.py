"""What the project says: parsing to a manifest, SQL analysis, schema inference, difference. Executes nothing."""
