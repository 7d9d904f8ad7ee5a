"""A look at the data before training: numbers, findings, and the report that shows them."""
