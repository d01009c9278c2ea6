"""Posts that users write."""
