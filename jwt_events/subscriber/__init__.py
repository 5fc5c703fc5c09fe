"""Receive events."""

from jwt_events.subscriber._subscriber import Subscriber, SubscriberStats

__all__ = ["Subscriber", "SubscriberStats"]
