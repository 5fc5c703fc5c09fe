"""Receive events."""

from jwt_events.subscriber._subscriber import Subscriber, SubscriberStats
from jwt_events.subscriber._subscription import SubscriberState

__all__ = ["Subscriber", "SubscriberState", "SubscriberStats"]
