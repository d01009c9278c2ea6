"""What happens to rows? Every transaction, every lock and every change of status is here."""
