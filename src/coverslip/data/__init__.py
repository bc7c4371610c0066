"""Images, tables, splits, pixels: everything before a network."""
