"""JWT and device passwords -> Client or Refusal.

``Refusal.reason`` of a login is one of ``REASONS``; the text never tells them apart.
"""

from gateway.auth.authenticator import Authenticator, Revocations
from gateway.auth.keys import ADMIN_AUDIENCE, ensure_own_key, examine, load_keys
from gateway.auth.passwords import hash_password, new_password
from gateway.auth.tokens import inspect, mint

REASONS = frozenset({
    "auth_failed", "auth_unavailable", "busy", "token_malformed", "token_unknown_key", "token_signature",
    "token_claims", "token_audience", "token_expired", "token_not_yet", "token_revoked", "unknown_client",
    "wrong_user", "wrong_network",
})  # fmt: skip

__all__ = [
    "ADMIN_AUDIENCE",
    "REASONS",
    "Authenticator",
    "Revocations",
    "ensure_own_key",
    "examine",
    "hash_password",
    "inspect",
    "load_keys",
    "mint",
    "new_password",
]
