"""What does a durable function mean? No framework, no database, no input or output."""
