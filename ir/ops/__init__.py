"""The op table. Importing this package registers every op; each file holds one family."""
