"""The examples that the specifications print, and what each of them is here.

The claims are those of the printed example, member for member: CAEP 1.0, RISC 1.0 and SSF 1.0 as the OpenID Foundation
publishes their sources, RFC 8417, RFC 8935, RFC 9493 and OpenID Connect Back-Channel Logout 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jwt_events.signals import CAEP, RISC, SSF

NOTHING = ""
UNKNOWN = "invalid_request: the subject is unknown here"
UNKNOWN_PART = "invalid_request: a part of the subject is unknown here"


@dataclass(frozen=True)
class Example:
    """An example of a specification.

    Attributes:
        name: where it is printed.
        claims: the claims set.
        told: what it is to a receiver that knows every subject.
        alone: what it is to a receiver without a resolver; by default the same.
    """

    name: str
    claims: dict[str, Any]
    told: str
    alone: str | None = None


def _claims(source: tuple[str, str, int], aud: Any, sub_id: Any, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    iss, jti, iat = source
    named = {"iss": iss, "jti": jti, "iat": iat, "aud": aud, "txn": "8675309", "sub_id": sub_id}
    return named | {"events": {kind: payload}}


_ONE = ("https://idp.example.com/123456789/", "24c63fb56e5a2d77a6b512616ca9fa24", 1615305159)
_TOKEN = ("https://idp.example.com/987654321/", "9afce1e4e642b165fcaacdd0e7aa4903", 1615305159)
_CREDENTIAL = ("https://idp.example.com/3456789/", "07efd930f0977e4fcc1149a733ce7f78", 1615305159)
_HERE, _THERE = "https://sp.example.com/caep", "https://sp.example2.net/caep"
_WHEN = {"event_timestamp": 1615304991}

_SESSION = {"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}
_TENANT = {"format": "opaque", "id": "123456789"}
_DEVICE = {"format": "iss_sub", "iss": _ONE[0], "sub": "e9297990-14d2-42ec-a4a9-4036db86509a"}
_JANE = {"format": "iss_sub", "iss": _CREDENTIAL[0], "sub": "jane.smith@example.com"}
_JWT = {"format": "jwt_id", "iss": _TOKEN[0], "jti": "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7"}
_SOMEUSER = {"format": "email", "email": "someuser@somedomain.com"}
_FINGERPRINT = "abb0b6e7da81a42233f8f2b1a8ddb1b9a4c81611"

_CAEP = (
    Example(
        "CAEP session-revoked, session id",
        _claims(_ONE, _HERE, _SESSION, f"{CAEP}session-revoked", _WHEN),
        "SessionDestroyed session=dMTlD|1600802906337.16|16008.16",
        UNKNOWN,
    ),
    Example(
        "CAEP session-revoked, subject and session",
        _claims(
            _ONE,
            _HERE,
            {
                "format": "complex",
                "session": _SESSION,
                "user": {"format": "iss_sub", "iss": _ONE[0], "sub": "99beb27c-c1c2-4955-882a-e0dc4996fcbc"},
                "tenant": _TENANT,
            },
            f"{CAEP}session-revoked",
            _WHEN
            | {
                "initiating_entity": "policy",
                "reason_admin": {"en": "Landspeed Policy Violation: C076E82F"},
                "reason_user": {
                    "en": "Access attempt from multiple regions.",
                    "es-410": "Intento de acceso desde varias regiones.",
                },
            },
        ),
        "SessionDestroyed session=dMTlD|1600802906337.16|16008.16 user=99beb27c-c1c2-4955-882a-e0dc4996fcbc",
        UNKNOWN_PART,
    ),
    Example(
        "CAEP session-revoked, user and device",
        _claims(
            _ONE,
            _HERE,
            {
                "format": "complex",
                "user": {"format": "iss_sub", "iss": _ONE[0], "sub": "jane.smith@example.com"},
                "device": _DEVICE,
                "tenant": _TENANT,
            },
            f"{CAEP}session-revoked",
            _WHEN
            | {
                "initiating_entity": "policy",
                "reason_admin": {"en": "Policy Violation: C076E822"},
                "reason_user": {
                    "en": "This device is no longer compliant.",
                    "it": "Questo dispositivo non è più conforme.",
                },
            },
        ),
        "TokenRevoked user=jane.smith@example.com",
    ),
    Example(
        "CAEP token-claims-change, id token",
        _claims(_TOKEN, _THERE, _JWT, f"{CAEP}token-claims-change", _WHEN | {"claims": {"role": "ro-admin"}}),
        "TokenRevoked token=f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7",
    ),
    Example(
        "CAEP token-claims-change, id token, optional members",
        _claims(
            _TOKEN,
            _THERE,
            _JWT,
            f"{CAEP}token-claims-change",
            _WHEN
            | {
                "initiating_entity": "policy",
                "reason_admin": {"en": "User left trusted network: CorpNet3"},
                "reason_user": {
                    "en": "You're no longer connected to a trusted network.",
                    "it": "Non sei più connesso a una rete attendibile.",
                },
                "claims": {"trusted_network": False},
            },
        ),
        "TokenRevoked token=f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7",
    ),
    Example(
        "CAEP token-claims-change, SAML assertion",
        _claims(
            (_TOKEN[0], "dae94fed5f459881efa38b65c6772ddc", 1615305159),
            _THERE,
            {"format": "saml_assertion_id", "issuer": _TOKEN[0], "assertion_id": "_a75adf55-01d7-dbd8372ebdfc"},
            f"{CAEP}token-claims-change",
            _WHEN | {"claims": {"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/role": "ro-admin"}},
        ),
        "SessionDestroyed session=_a75adf55-01d7-dbd8372ebdfc",
        UNKNOWN,
    ),
    Example(
        "CAEP credential-change, new authenticator",
        _claims(
            _CREDENTIAL,
            _THERE,
            _JANE,
            f"{CAEP}credential-change",
            _WHEN
            | {
                "credential_type": "fido2-roaming",
                "change_type": "create",
                "fido2_aaguid": "accced6a-63f5-490a-9eea-e59bc1896cfc",
                "friendly_name": "Jane's USB authenticator",
                "initiating_entity": "user",
                "reason_admin": {"en": "User self-enrollment"},
            },
        ),
        NOTHING,
    ),
    Example(
        "CAEP assurance-level-change, increase",
        _claims(
            _CREDENTIAL,
            _THERE,
            _JANE,
            f"{CAEP}assurance-level-change",
            _WHEN
            | {
                "namespace": "NIST-AAL",
                "current_level": "nist-aal2",
                "previous_level": "nist-aal1",
                "change_direction": "increase",
                "initiating_entity": "user",
            },
        ),
        NOTHING,
    ),
    Example(
        "CAEP assurance-level-change, a level of one's own without a direction",
        _claims(
            _CREDENTIAL,
            _THERE,
            _JANE,
            f"{CAEP}assurance-level-change",
            _WHEN | {"namespace": "Retinal Scan", "current_level": "hi-res-scan", "initiating_entity": "user"},
        ),
        "TokenRevoked user=jane.smith@example.com",
    ),
    Example(
        "CAEP device-compliance-change",
        _claims(
            _ONE,
            _HERE,
            {"format": "complex", "device": _DEVICE, "tenant": _TENANT},
            f"{CAEP}device-compliance-change",
            _WHEN
            | {
                "current_status": "not-compliant",
                "previous_status": "compliant",
                "initiating_entity": "policy",
                "reason_admin": {"en": "Location Policy Violation: C076E8A3"},
                "reason_user": {"en": "Device is no longer in a trusted location."},
            },
        ),
        "TokenRevoked user=owner of the device",
        "invalid_request: the subject names neither a user nor a session",
    ),
    Example(
        "CAEP session-established",
        _claims(
            _ONE,
            _HERE,
            _SOMEUSER,
            f"{CAEP}session-established",
            _WHEN | {"fp_ua": _FINGERPRINT, "acr": "AAL2", "amr": ["otp"]},
        ),
        NOTHING,
        UNKNOWN,
    ),
    Example(
        "CAEP session-presented",
        _claims(_ONE, _HERE, _SOMEUSER, f"{CAEP}session-presented", _WHEN | {"fp_ua": _FINGERPRINT, "ext_id": "12345"}),
        NOTHING,
    ),
    Example(
        "CAEP risk-level-change",
        _claims(
            _ONE,
            _HERE,
            {"format": "iss_sub", "iss": _CREDENTIAL[0], "sub": "jane.doe@example.com"},
            f"{CAEP}risk-level-change",
            _WHEN
            | {
                "current_level": "LOW",
                "previous_level": "HIGH",
                "principal": "USER",
                "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH",
            },
        ),
        NOTHING,
    ),
)


def _risc(kind: str, subject: dict[str, Any], payload: dict[str, Any] | None = None) -> dict[str, Any]:
    claims = _claims(
        ("https://idp.example.com/", "756E69717565206964656E746966696572", 1508184845),
        "636C69656E745F6964",
        subject,
        RISC + kind,
        payload or {},
    )
    del claims["txn"]
    return claims


_SUBJECT = {"format": "iss_sub", "iss": "https://idp.example.com/", "sub": "7375626A656374"}
_FOO = {"format": "email", "email": "foo@example.com"}

_RISC = (
    Example(
        "RISC account-credential-change-required",
        _risc("account-credential-change-required", _SUBJECT),
        "TokenRevoked user=7375626A656374",
    ),
    Example(  # it is printed with a comma too many, which is not JSON: the test refuses that form as well
        "RISC account-disabled",
        _risc("account-disabled", _SUBJECT, {"reason": "hijacking"}),
        "TokenRevoked user=7375626A656374",
    ),
    Example(
        "RISC identifier-changed",
        _risc(
            "identifier-changed",
            {"format": "email", "email": "john.doe@example.com"},
            {"new-value": "john.roe@example.com"},
        ),
        "TokenRevoked user=user of john.doe@example.com",
        UNKNOWN,
    ),
    Example(
        "RISC identifier-recycled",
        _risc("identifier-recycled", _FOO),
        "TokenRevoked user=user of foo@example.com",
        UNKNOWN,
    ),
    Example(
        "RISC credential-compromise",
        _risc(
            "credential-compromise",
            {"format": "iss_sub", "iss": "https://idp.example.com/3456790/", "sub": "joe.smith@example.com"},
            {"credential_type": "password"},
        )
        | {"iss": "https://idp.example.com/3456790/", "aud": _THERE},
        "TokenRevoked user=joe.smith@example.com",
    ),
)

_STATE = "VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo="
_TENANT_OF_SSF = "https://idp.example.com/3957ea72-1b66-44d6-a044-d805712b9288/"
_AT_IDP = ("https://idp.example.com/", "756E69717565206964656E746966696572", 1520364019)
_CLIENT = "636C69656E745F6964"


def _about_the_stream(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    stream = {"format": "opaque", "id": "f67e39a0a4d34d56b3aa1bc4cff0069f"}
    claims = _claims(
        ("https://transmitter.example.com", "123456", 1493856000), "receiver.example.com", stream, SSF + kind, payload
    )
    del claims["txn"]
    return claims


_SSF = (
    Example(
        "SSF, array in aud",
        _claims(
            ("https://transmitter.example.com", "123456", 1493856000),
            ["receiver.example.com/web", "receiver.example.com/mobile"],
            {"format": "opaque", "id": "72e6991badb44e08a69672960053b342"},
            f"{SSF}verification",
            {"state": _STATE},
        ),
        f"verification state={_STATE}",
    ),
    Example(
        "SSF, email",
        _claims(_AT_IDP, _CLIENT, _FOO, f"{RISC}account-enabled", {}),
        NOTHING,
    ),
    Example(
        "SSF, phone number",
        _claims(
            _AT_IDP,
            _CLIENT,
            {"format": "phone_number", "phone_number": "+1 206 555 0123"},
            f"{RISC}account-disabled",
            {"reason": "hijacking"},
        ),
        "TokenRevoked user=user of +1 206 555 0123",
        UNKNOWN,
    ),
    Example(
        "SSF, properties of the event",
        _claims(
            _AT_IDP,
            _CLIENT,
            {"format": "email", "email": "user@example.com"},
            f"{CAEP}token-claims-change",
            {"claims": {"token": "some-token-value"}},
        ),
        "TokenRevoked user=user of user@example.com",
        UNKNOWN,
    ),
    Example(
        "SSF, complex subject",
        _claims(
            _AT_IDP,
            _CLIENT,
            {
                "format": "complex",
                "user": {"format": "iss_sub", "iss": _TENANT_OF_SSF, "sub": "jane.smith@example.com"},
                "device": {"format": "iss_sub", "iss": _TENANT_OF_SSF, "sub": "e9297990-14d2-42ec-a4a9-4036db86509a"},
            },
            f"{CAEP}session-revoked",
            {
                "initiating_entity": "policy",
                "reason_admin": {"en": "Policy Violation: C076E82F"},
                "reason_user": {"en": "Land speed violation.", "es": "Violación de velocidad en tierra."},
                "event_timestamp": 1600975810,
            },
        ),
        "TokenRevoked user=user of jane.smith@example.com",
        UNKNOWN_PART,
    ),
    Example(
        "SSF, simple subject and a property",
        _claims(
            ("https://sp.example2.com/", *_AT_IDP[1:]),
            _CLIENT,
            {"format": "email", "email": "foo@example2.com"},
            f"{CAEP}token-claims-change",
            {"event_timestamp": 1600975810, "claims": {"role": "ro-admin"}},
        ),
        "TokenRevoked user=user of foo@example2.com",
        UNKNOWN,
    ),
    Example(  # the year is 2451
        "SSF, proprietary subject",
        _claims(
            ("https://myservice.example3.com/", "756E69717565206964656E746966696534", 15203800012),
            "636C69656E745F6324",
            {"format": "catalog_item", "catalog_id": "c0384/winter/2354122"},
            f"{CAEP}token-claims-change",
            {"event_timestamp": 1600975810, "claims": {"role": "ro-admin"}},
        ),
        "invalid_request: iat is in the future",
    ),
    Example(
        "SSF, verification",
        _about_the_stream("verification", {"state": _STATE}),
        f"verification state={_STATE}",
    ),
    Example(
        "SSF, stream-updated",
        _about_the_stream("stream-updated", {"status": "paused", "reason": "Internal error"}),
        "stream-updated status=paused",
    ),
)

_JDOE = {"format": "email", "email": "jdoe@example.com"}
_TENANT_A38 = {"format": "opaque", "id": "example-a38h4792-uw2"}

SUBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "RFC 9493 account": (
        {"format": "account", "uri": "acct:example.user@service.example.com"},
        "user of acct:example.user@service.example.com",
    ),
    "RFC 9493 email": ({"format": "email", "email": "user@example.com"}, "user of user@example.com"),
    "RFC 9493 iss_sub": (
        {"format": "iss_sub", "iss": "https://issuer.example.com/", "sub": "145234573"},
        "user of 145234573",
    ),
    "RFC 9493 opaque": ({"format": "opaque", "id": "11112222333344445555"}, "user of 11112222333344445555"),
    "RFC 9493 phone number": (
        {"format": "phone_number", "phone_number": "+12065550100"},
        "user of +12065550100",
    ),
    "RFC 9493 did": ({"format": "did", "url": "did:example:123456"}, "user of did:example:123456"),
    "RFC 9493 did with a path": (
        {"format": "did", "url": "did:example:123456/did/url/path?versionId=1"},
        "user of did:example:123456/did/url/path?versionId=1",
    ),
    "RFC 9493 uri": ({"format": "uri", "uri": "https://user.example.com/"}, "user of https://user.example.com/"),
    "RFC 9493 urn": (
        {"format": "uri", "uri": "urn:uuid:4e851e98-83c4-4743-a5da-150ecb53042f"},
        "user of urn:uuid:4e851e98-83c4-4743-a5da-150ecb53042f",
    ),
    "RFC 9493 aliases": (
        {
            "format": "aliases",
            "identifiers": [
                {"format": "email", "email": "user@example.com"},
                {"format": "phone_number", "phone_number": "+12065550100"},
                {"format": "email", "email": "user+qualifier@example.com"},
            ],
        },
        "user of user@example.com",
    ),
    "RFC 9493 subject of another issuer": (
        {"format": "iss_sub", "iss": "issuer.example.com", "sub": "example_user"},
        "user of example_user",
    ),
    "SSF email": (_FOO, "user of foo@example.com"),
    "SSF complex": (
        {
            "format": "complex",
            "user": {"format": "email", "email": "bar@example.com"},
            "tenant": {"format": "iss_sub", "iss": "https://example.com/idp1", "sub": "1234"},
        },
        "user of bar@example.com",
    ),
    "SSF user of a tenant": (
        {"format": "complex", "tenant": _TENANT_A38, "user": _JDOE},
        "user of jdoe@example.com",
    ),
    "SSF user at addresses": (
        {
            "format": "complex",
            "user": _JDOE,
            "device": {"format": "ip-addresses", "ip-addresses": ["10.29.37.75"]},
        },
        "user of jdoe@example.com",
    ),
    "SSF complex of one": ({"format": "complex", "user": _JDOE}, "user of jdoe@example.com"),
    "SSF user of a group": (
        {"format": "complex", "user": _JDOE, "group": {"format": "did", "url": "did:example:123456"}},
        "user of jdoe@example.com",
    ),
    "SSF user of another group": (
        {"format": "complex", "user": _JDOE, "group": {"format": "did", "url": "did:example:9999999"}},
        "user of jdoe@example.com",
    ),
    "SSF saml_assertion_id": (
        {
            "format": "saml_assertion_id",
            "issuer": "https://idp.example.com/123456789/",
            "assertion_id": "_8e8dc5f69a98cc4c1ff3427e5ce34606fd672f91e6",
        },
        "session _8e8dc5f69a98cc4c1ff3427e5ce34606fd672f91e6",
    ),
    "SSF jwt_id of another issuer": (
        {
            "format": "jwt_id",
            "iss": "https://idp.example.com/123456789/",
            "jti": "B70BA622-9515-4353-A866-823539EECBC8",
        },
        "user of B70BA622-9515-4353-A866-823539EECBC8",
    ),
    "SSF ip-addresses": (
        {
            "format": "ip-addresses",
            "ip-addresses": ["10.29.37.75", "2001:0db8:0000:0000:0000:8a2e:0370:7334"],
        },
        "",
    ),
    "SSF tenant": ({"format": "complex", "tenant": _TENANT_A38}, "owner of the device"),
    "SSF proprietary": (
        {"format": "catalog_item", "catalog_id": "c0384/winter/2354122"},
        "user of c0384/winter/2354122",
    ),
}
"""Subject identifiers that are printed by themselves, and what a receiver that knows every subject takes them for."""

_SCIM = "https://scim.example.com"

_SET = (
    Example(
        "RFC 8417 SCIM password reset",
        {
            "iss": _SCIM,
            "iat": 1458496025,
            "jti": "3d0c3cf797584bd193bd0fb1bd4e7d30",
            "aud": [
                "https://jhub.example.com/Feeds/98d52461fa5bbc879593b7754",
                "https://jhub.example.com/Feeds/5d7604516b1d08641d7676ee7",
            ],
            "sub": f"{_SCIM}/Users/44f6142df96bd6ab61e7521d9",
            "events": {
                "urn:ietf:params:scim:event:passwordReset": {"id": "44f6142df96bd6ab61e7521d9"},
                "https://example.com/scim/event/passwordResetExt": {"resetAttempts": 5},
            },
        },
        "invalid_request: sub is not allowed in a security event token; the subject is in sub_id",
    ),
    Example(
        "RFC 8417 consent",
        {
            "iss": "https://my.med.example.org",
            "iat": 1458496025,
            "jti": "fb4e75b5411e4e19b6c0fe87950f7749",
            "aud": ["https://rp.example.com"],
            "events": {
                "https://openid.net/heart/specs/consent.html": {
                    "iss": "https://connect.example.com",
                    "sub": "248289761001",
                    "consentUri": ["https://terms.med.example.org/labdisclosure.html#Agree"],
                }
            },
        },
        NOTHING,
    ),
    Example(
        "RFC 8417 RISC",
        {
            "iss": "https://idp.example.com/",
            "jti": "756E69717565206964656E746966696572",
            "iat": 1508184845,
            "aud": "636C69656E745F6964",
            "events": {
                f"{RISC}account-disabled": {
                    "subject": {
                        "subject_type": "iss-sub",
                        "iss": "https://idp.example.com/",
                        "sub": "7375626A656374",
                    },
                    "reason": "hijacking",
                }
            },
        },
        "TokenRevoked user=7375626A656374",
    ),
)

EXAMPLES = (*_CAEP, *_RISC, *_SSF, *_SET)

LOGOUT_TOKEN: dict[str, Any] = {
    "iss": "https://server.example.com",
    "sub": "248289761001",
    "aud": "s6BhdRkqt3",
    "iat": 1471566154,
    "exp": 1471569754,
    "jti": "bWJq",
    "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
    "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
}
"""OpenID Connect Back-Channel Logout 1.0 §2.4; RFC 8417 §2.1.2 prints an older form of it, without ``exp``."""

UNSECURED = (
    "eyJ0eXAiOiJzZWNldmVudCtqd3QiLCJhbGciOiJub25lIn0."
    "eyJqdGkiOiI0ZDM1NTllYzY3NTA0YWFiYTY1ZDQwYjAzNjNmYWFkOCIsImlhdCI6MTQ1ODQ5NjQwNCwiaXNzIjoiaHR0cHM6Ly9zY2ltLmV4YW1wbGUu"
    "Y29tIiwiYXVkIjpbImh0dHBzOi8vc2NpbS5leGFtcGxlLmNvbS9GZWVkcy85OGQ1MjQ2MWZhNWJiYzg3OTU5M2I3NzU0IiwiaHR0cHM6Ly9zY2ltLmV4"
    "YW1wbGUuY29tL0ZlZWRzLzVkNzYwNDUxNmIxZDA4NjQxZDc2NzZlZTciXSwiZXZlbnRzIjp7InVybjppZXRmOnBhcmFtczpzY2ltOmV2ZW50OmNyZWF0"
    "ZSI6eyJyZWYiOiJodHRwczovL3NjaW0uZXhhbXBsZS5jb20vVXNlcnMvNDRmNjE0MmRmOTZiZDZhYjYxZTc1MjFkOSIsImF0dHJpYnV0ZXMiOlsiaWQi"
    "LCJuYW1lIiwidXNlck5hbWUiLCJwYXNzd29yZCIsImVtYWlscyJdfX19."
)
"""RFC 8417 §2.4: a whole token, without a signature."""

PUSHED = (
    "eyJ0eXAiOiJzZWNldmVudCtqd3QiLCJhbGciOiJIUzI1NiJ9Cg."
    "eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbS8iLCJqdGkiOiI3NTZFNjk"
    "3MTc1NjUyMDY5NjQ2NTZFNzQ2OTY2Njk2NTcyIiwiaWF0IjoxNTA4MTg0ODQ1LC"
    "JhdWQiOiI2MzZDNjk2NTZFNzQ1RjY5NjQiLCJldmVudHMiOnsiaHR0cHM6Ly9zY"
    "2hlbWFzLm9wZW5pZC5uZXQvc2VjZXZlbnQvcmlzYy9ldmVudC10eXBlL2FjY291"
    "bnQtZGlzYWJsZWQiOnsic3ViamVjdCI6eyJzdWJqZWN0X3R5cGUiOiJpc3Mtc3V"
    "iIiwiaXNzIjoiaHR0cHM6Ly9pZHAuZXhhbXBsZS5jb20vIiwic3ViIjoiNzM3NT"
    "YyNkE2NTYzNzQifSwicmVhc29uIjoiaGlqYWNraW5nIn19fQ."
    "Y4rXxMD406P2edv00cr9Wf3_XwNtLjB9n-jTqN1_lLc"
)
"""RFC 8935 §2.1: a whole token, signed with a shared secret that is not printed."""
