"""RSA keys, which take long to make: the same for all tests that need one, or one that is another."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def rsa_key(name: str = "one", size: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same name and size."""
    return rsa.generate_private_key(65537, size)
