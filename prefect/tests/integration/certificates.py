"""Certificates for the tests of TLS, made when they are needed."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A private CA whose files are in `folder`; `certificate` is the value for `tls_ca_cert`."""

    def __init__(self, folder: Path, name: str = 'A private CA') -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        signed = (
            self._builder(self._name, is_authority=True)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / 'ca.pem'
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, host: str = 'localhost', days: int = 1, self_signed: bool = False, issuers: str = ''
    ) -> Path:
        """A file with a certificate and its key that is valid for so many days; negative: that long ago.

        `issuers` is a URL at which the certificate says that the one of its authority is found.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ip_address('127.0.0.1'))])
        builder = self._builder(subject, days=days).add_extension(names, critical=False)
        if issuers:
            access = x509.AccessDescription(
                x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(issuers)
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        issuer, issuer_key = (subject, key) if self_signed else (self._name, self._key)
        signed = builder.issuer_name(issuer).public_key(key.public_key()).sign(issuer_key, hashes.SHA256())
        path = self._folder / f'{name}.pem'
        path.write_bytes(
            signed.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def server_context(self, certificate: Path, *, demands_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if demands_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context

    @staticmethod
    def _builder(subject: x509.Name, *, days: int = 1, is_authority: bool = False) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=min(days, 0) - 1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
