"""Parsing a JWK Set: which entries become keys, which are skipped."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from jwt_events import InvalidKeySet
from jwt_events.events import fingerprint
from jwt_events.keys._jwks import read
from tests.support.examples import all_that_is_said
from tests.support.issuers import entry, private_key
from tests.support.strategies import json_values

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
RSA_ENTRY = {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa"}
WEAK_ENTRY = {**RSAAlgorithm.to_jwk(WEAK_KEY.public_key(), as_dict=True), "kid": "weak"}
ED_KEY = ed25519.Ed25519PrivateKey.generate()
GOOD = entry("good")
SECRET = "-".join(["the", "secret", "itself"])  # not in one piece, so that a traceback does not quote it

_members = st.sampled_from(["kty", "kid", "use", "alg", "crv", "x", "y", "n", "e", "d", "k", "key_ops"])


class TestUsable:
    """Entries that become keys."""

    @pytest.mark.parametrize(
        ("curve", "algorithm"),
        [(ec.SECP256R1(), "ES256"), (ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512"), (ec.SECP256K1(), "ES256K")],
        ids=lambda value: str(value)[:6],
    )
    @pytest.mark.parametrize("named", [True, False])
    def test_elliptic_curves(self, curve: ec.EllipticCurve, algorithm: str, named: bool) -> None:
        """Every curve of RFC 7518 and 8812 with its algorithm, named or not."""
        key = ec.generate_private_key(curve)
        jwk = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "ec"} | (
            {"alg": algorithm} if named else {}
        )
        found = read({"keys": [jwk]}).named["ec"]
        assert jwt.decode(jwt.encode({"a": 1}, key, algorithm), found) == {"a": 1}

    @pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
    def test_rsa(self, algorithm: str) -> None:
        """RSA with the algorithm that the entry names."""
        found = read({"keys": [{**RSA_ENTRY, "alg": algorithm}]}).named["rsa"]
        assert jwt.decode(jwt.encode({"a": 1}, RSA_KEY, algorithm), found) == {"a": 1}

    def test_edwards_curve(self) -> None:
        """Ed25519 of RFC 8037."""
        jwk = {**OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True), "kid": "ed"}
        assert jwt.decode(jwt.encode({"a": 1}, ED_KEY, "EdDSA"), read({"keys": [jwk]}).named["ed"]) == {"a": 1}

    def test_without_kid(self) -> None:
        """A key without kid is kept apart."""
        found = read({"keys": [entry("one", kid=None), GOOD]})
        assert (len(found.unnamed), list(found.named), found.skipped) == (1, ["good"], ())

    def test_unknown_members(self) -> None:
        """Unknown members are ignored, in the set and in its entries (RFC 7517 §4, §5)."""
        assert read({"keys": [{**GOOD, "x5c": ["?"], "exp": 1, "extra": {}}], "extra": 1}).named.keys() == {"good"}


class TestOtherPurposes:
    """Valid entries for purposes other than signatures."""

    @pytest.mark.parametrize("changes", [{"use": "enc"}, {"use": None, "key_ops": ["encrypt"]}, {"use": 5}], ids=str)
    def test_other_purposes(self, changes: dict[str, Any]) -> None:
        """Keys for encryption are left out, and not reported as skipped."""
        found = read({"keys": [GOOD, entry("other", **changes)]})
        assert (list(found.named), found.skipped) == (["good"], ())

    def test_operations(self) -> None:
        """A key with the operation ``verify`` is used."""
        assert "one" in read({"keys": [entry("one", use=None, key_ops=["verify"])]}).named

    @pytest.mark.parametrize("member", ["use", "key_ops", "alg"])
    def test_null(self, member: str) -> None:
        """A member that is null counts as absent: the key is used."""
        assert "one" in read({"keys": [{**entry("one"), member: None}]}).named

    def test_null_beside_another_purpose(self) -> None:
        """Null does not hide what the other member says."""
        null_use = {**entry("one"), "use": None, "key_ops": ["encrypt"]}
        null_operations = {**entry("two"), "use": "enc", "key_ops": None}
        assert list(read({"keys": [GOOD, null_use, null_operations]}).named) == ["good"]


class TestSkipped:
    """Unusable entries do not affect the others."""

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            ("text", "not an object"),
            (None, "not an object"),
            ([GOOD], "not an object"),
            ({"kty": "oct", "kid": "bad", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}, "symmetric key"),
            (entry("bad", kty="oct", alg="HS256", k="c2VjcmV0"), "symmetric key"),
            (entry("bad", key_ops="verify"), "key_ops is not a list"),
            (entry("bad", use="sig", key_ops=["sign"]), "use is sig, but key_ops lacks verify"),
            (entry("bad", kty=None), "unsupported key type or curve"),
            (entry("bad", kty=["EC"]), "unsupported key type or curve"),
            (entry("bad", kty="AKP"), "unsupported key type or curve"),
            (entry("bad", crv="P-192"), "unsupported key type or curve"),
            (entry("bad", crv=None), "unsupported key type or curve"),
            (entry("bad", crv={}), "unsupported key type or curve"),
            (entry("bad", x="AAAA"), "cannot be read"),
            (entry("bad", x=5), "cannot be read"),
            (entry("bad", y=None), "cannot be read"),
            (entry("bad", alg="none"), "cannot be read"),
            (entry("bad", alg=["ES256"]), "cannot be read"),
            (entry("bad", alg="RSA-OAEP"), "cannot be read"),
            (entry("bad", alg="HS256"), "cannot be read"),
            (entry("bad", alg="ES384"), "algorithm does not suit the key"),
            ({**RSA_ENTRY, "alg": "RSA-OAEP-256"}, "cannot be read"),
            (WEAK_ENTRY, "RSA key of less than 2048 bits"),
            (
                ECAlgorithm.to_jwk(private_key("bad"), as_dict=True) | {"kid": "bad"},
                "private key, which everybody knows",
            ),
            (entry("bad", kid=""), "kid is not a text"),
            (entry("bad", kid=7), "kid is not a text"),
            (entry("bad", kid="k" * 513), "kid is not a text"),
        ],
        ids=lambda value: value if isinstance(value, str) else "entry",  # key material differs in every process
    )
    def test_bad_entry(self, bad: Any, problem: str) -> None:
        """An unusable entry is skipped with the reason; a symmetric key is never used as a public one."""
        for entries in ([bad, GOOD], [GOOD, bad]):
            found = read({"keys": entries})
            assert list(found.named) == ["good"]
            assert not found.unnamed
            (skipped,) = found.skipped
            assert skipped.problem.startswith(problem)

    def test_kid_twice(self) -> None:
        """Of two entries with one kid the first usable one counts."""
        found = read({"keys": [entry("one", x=5), entry("one"), entry("two", kid="one")]})
        assert jwt.decode(jwt.encode({}, private_key("one"), "ES256"), found.named["one"]) == {}
        assert [skipped.problem for skipped in found.skipped] == ["cannot be read", "kid appears twice"]

    def test_described_by_fingerprint(self) -> None:
        """The description of a skipped entry contains neither its kid nor its content."""
        (skipped,) = read({"keys": [GOOD, entry("the kid", x="the content")]}).skipped
        assert skipped.fingerprint == fingerprint("the kid")
        assert "the " not in repr(skipped)


class TestRefused:
    """Documents that are not a set of public keys."""

    @pytest.mark.parametrize(
        "document",
        [None, [], "x", b"{}", 5, {}, {"keys": None}, {"keys": {}}, {"keys": "abc"}, {"keys": []}, {"keys": [None]}],
        ids=repr,
    )
    def test_no_set(self, document: Any) -> None:
        """A document that is not a JWK Set is refused as a whole."""
        with pytest.raises(InvalidKeySet):
            read(document)

    def test_too_large(self) -> None:
        """A set with too many entries is refused before any is parsed."""
        with pytest.raises(InvalidKeySet, match="257 entries"):
            read({"keys": [GOOD] * 257})

    def test_only_useless_entries(self) -> None:
        """The error gives the count of entries and nothing of their content."""
        with pytest.raises(InvalidKeySet, match="2 entries") as caught:
            read({"keys": [entry(SECRET, x=SECRET), {"kty": "oct", "k": SECRET}]})
        assert SECRET not in all_that_is_said(caught.value)

    @given(st.dictionaries(_members, json_values, max_size=6), json_values)
    def test_beside_anything(self, changes: dict[str, Any], other: Any) -> None:
        """A usable key is found whatever else the set contains."""
        odd = {**GOOD, "kid": "odd", **changes}
        found = read({"keys": [odd, other, GOOD, changes]})
        assert "good" in found.named
        with pytest.raises(InvalidKeySet):
            read({"keys": other})
