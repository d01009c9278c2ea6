"""Encryption of stored payloads: ``DURABLE["CODEC"] = "django_durable.encryption.FernetCodec"``.

Needs the extra ``encryption``: ``pip install "django-durable-functions[encryption]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conf import get_settings
from .exceptions import CodecError, ConfigurationError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class FernetCodec:
    """Encrypts with the first of ``DURABLE["ENCRYPTION_KEYS"]``, and decrypts with any of them.

    A Fernet token is encrypted with AES-128 and signed with HMAC-SHA256. Making a codec raises ConfigurationError if
    cryptography is not installed, if there are no usable keys, or if there are no ``MATCH_KEYS``.
    """

    def __init__(self) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError as error:
            raise ConfigurationError(
                'DURABLE["CODEC"]: FernetCodec needs the package cryptography; '
                'install it: pip install "django-durable-functions[encryption]"'
            ) from error
        settings = get_settings()
        if not settings.encryption_keys:
            raise ConfigurationError(
                'DURABLE["ENCRYPTION_KEYS"] is empty; put a key there that '
                "cryptography.fernet.Fernet.generate_key().decode() made"
            )
        if not settings.match_keys:
            raise ConfigurationError(
                'DURABLE["MATCH_KEYS"] is empty, so hashes of encrypted values could be guessed; put a secret text of '
                "its own there, such as one of secrets.token_urlsafe(32), and keep it when encryption keys change"
            )
        self._fernet = MultiFernet([_fernet(Fernet, *each) for each in enumerate(settings.encryption_keys)])
        self._invalid = InvalidToken

    def encode(self, text: str) -> str:
        """Encrypt *text* with the newest key."""
        return self._fernet.encrypt(text.encode()).decode()

    def decode(self, text: str) -> str:
        """Decrypt *text* with the key that fits; CodecError if none does."""
        try:
            return self._fernet.decrypt(text.encode()).decode()
        except self._invalid:
            raise CodecError(
                'no key of DURABLE["ENCRYPTION_KEYS"] fits, or the payload was changed. Add the key that encrypted it'
            ) from None


def _fernet(fernet: type[Fernet], position: int, key: str) -> Fernet:
    try:
        return fernet(key)
    except ValueError:
        # The library's error is left out: a traceback must not show a key.
        raise ConfigurationError(
            f'DURABLE["ENCRYPTION_KEYS"][{position}] is not a key; make one with '
            "cryptography.fernet.Fernet.generate_key().decode()"
        ) from None
