#!/usr/bin/env python3
"""Posts Web Push messages with the library `pywebpush`, as an application server does.

    push.py --subscription FILE --ca CA.pem --ttl N [--vapid KEY.pem] TEXT...

FILE holds a PushSubscription as browsers give it out: {"endpoint": "https://...", "keys": {"p256dh": "...",
"auth": "..."}}. Each TEXT is one message, encrypted (RFC 8291, aes128gcm) and posted (RFC 8030), without VAPID unless
KEY.pem holds a private key for it (RFC 8292); the certificate of the push service must be one that CA.pem vouches for. One line is printed for each message: its status
code and whether a Location header came. The exit code is 0 if all were answered with 201, else 1.

It was written from the specification of the link protocol and the public standards alone. It needs the packages of
requirements.txt.
"""

import argparse
import json
import sys

import requests
from pywebpush import WebPushException, webpush

CREATED = 201
TIMEOUT_S = 30
CONTACT = "mailto:push@example.com"


def post(session, subscription, text, ttl, vapid):
    """The response to one message, whatever its status is."""
    try:
        # The claims are filled in by the library, so each message gets its own.
        claims = {"vapid_private_key": vapid, "vapid_claims": {"sub": CONTACT}} if vapid else {}
        return webpush(subscription, data=text, ttl=ttl, timeout=TIMEOUT_S, requests_session=session, **claims)
    except WebPushException as error:
        if error.response is None:
            raise
        return error.response


def new_session(ca):
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc, no other CA
    session.verify = ca
    return session


def number(text):
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def main(argv=None):
    parser = argparse.ArgumentParser(description="Post Web Push messages.")
    parser.add_argument("--subscription", required=True, metavar="FILE", help="a PushSubscription in JSON")
    parser.add_argument("--ca", required=True, metavar="CA.pem", help="the certificates to trust")
    parser.add_argument("--ttl", required=True, type=number, metavar="N", help="seconds to keep a message")
    parser.add_argument("--vapid", metavar="KEY.pem", help="the private key to identify with")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="a message")
    options = parser.parse_args(argv)
    with open(options.subscription, encoding="utf-8") as file:
        subscription = json.load(file)
    all_created = True
    with new_session(options.ca) as session:
        for text in options.texts:
            try:
                response = post(session, subscription, text, options.ttl, options.vapid)
            except (requests.RequestException, WebPushException) as error:
                print(f"failed: {error}", flush=True)
                all_created = False
                continue
            location = "with Location" if "Location" in response.headers else "without Location"
            print(f"{response.status_code} {location}", flush=True)
            all_created = all_created and response.status_code == CREATED
    return 0 if all_created else 1


if __name__ == "__main__":
    sys.exit(main())
