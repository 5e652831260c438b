"""``gateway setup``: settings made of answers, and what they need at a provider."""
