"""Random programs on real workers, while workers, broker and database are killed: ``scripts/soak``."""
