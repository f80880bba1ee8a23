"""Notifications of object stores in, one form out: what happened to which object.

`normalise` reads what S3 (directly, through EventBridge, SNS, SQS or Lambda), MinIO, Google Cloud
Storage, Azure Blob Storage and OCI Object Storage send. Pure; one module per provider.
"""

from augury.events.normalise.normaliser import Untouched, normalise, normalise_json
from augury.events.normalise.notice import Change, ObjectNotice, Provider

__all__ = ["Change", "ObjectNotice", "Provider", "Untouched", "normalise", "normalise_json"]
