"""What a durable function means: replay, steps, retries, durations, expressions, encoding. No framework, no I/O."""
