from tests.backends.kit import certificates

__all__ = ["certificates"]
