"""JWT and device passwords -> Client or Refusal."""

from gateway.auth.authenticator import REASONS, Authenticator, LoginRefused
from gateway.auth.following import Following
from gateway.auth.guesses import Guesses
from gateway.auth.keys import ADMIN_AUDIENCE, ensure_own_key, examine, load_keys, signing_keys
from gateway.auth.passwords import hash_password, new_password
from gateway.auth.tokens import Revocations, inspect, mint

__all__ = [
    "ADMIN_AUDIENCE",
    "REASONS",
    "Authenticator",
    "Following",
    "Guesses",
    "LoginRefused",
    "Revocations",
    "ensure_own_key",
    "examine",
    "hash_password",
    "inspect",
    "load_keys",
    "mint",
    "new_password",
    "signing_keys",
]
