"""A certificate for a server on loopback: self-signed, made at start, gone with its folder.

It is here because the test doubles speak HTTPS like what they stand for: a client has to trust
`file` as its CA, or pin `fingerprint`; nothing in the tests switches verification off.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A key and its self-signed certificate for 127.0.0.1 and localhost, in one PEM file."""

    file: Path
    fingerprint: str
    """SHA-256 of the DER form as PVE prints it: upper case, bytes parted by colons."""

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """Write a fresh certificate, valid for a day, to `folder`/server.pem."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _begun("localhost", "localhost", key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("localhost"),
                        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        file = folder / "server.pem"
        _write(file, key, certificate)
        return cls(file, certificate.fingerprint(hashes.SHA256()).hex(":").upper())

    @classmethod
    def issued(cls, folder: Path) -> tuple[Certificate, Path]:
        """Write a certificate and the CA that issued it; return it and the CA's file.

        As with the CA that Proxmox VE makes for a cluster, the CA's certificate names no key usage.
        """
        authority = ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
        known = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer)
        address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        ca = (
            _begun("Test CA", "Test CA", authority)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(issuer, critical=False)
            .sign(authority, hashes.SHA256())
        )
        certificate = (
            _begun("127.0.0.1", "Test CA", key)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(known, critical=False)
            .sign(authority, hashes.SHA256())
        )
        file, ca_file = folder / "issued.pem", folder / "ca.pem"
        _write(file, key, certificate)
        ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        return cls(file, certificate.fingerprint(hashes.SHA256()).hex(":").upper()), ca_file

    def server_context(self) -> ssl.SSLContext:
        """Return what a server wraps its connections with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        return context


def _begun(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """Begin a certificate that is valid for a day."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _write(file: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    """Write a key and its certificate as a server wants them."""
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
