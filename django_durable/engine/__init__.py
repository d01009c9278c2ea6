"""What happens to rows: every transaction, lock, claim and change of status."""
