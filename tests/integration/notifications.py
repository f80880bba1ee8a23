"""Notifications as the providers send them: after their documentation, with names of ours."""

from __future__ import annotations

import base64
import json
from typing import Any

S3_RECORD: dict[str, Any] = {
    "eventVersion": "2.6",
    "eventSource": "aws:s3",
    "awsRegion": "eu-central-1",
    "eventTime": "2026-11-01T06:00:00.123Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AWS:AROAEXAMPLE:producer"},
    "requestParameters": {"sourceIPAddress": "192.0.2.7"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "arrivals",
        "bucket": {
            "name": "landing",
            "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
            "arn": "arn:aws:s3:::landing",
        },
        "object": {
            "key": "in/day+one/caf%C3%A9%2B1.parquet",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
S3 = {"Records": [S3_RECORD]}
S3_REMOVED = {
    "Records": [
        {
            **S3_RECORD,
            "eventName": "ObjectRemoved:Delete",
            "s3": {
                "bucket": {"name": "landing"},
                "object": {"key": "in/a.parquet", "sequencer": "0055AED6DCD90281E6"},
            },
        }
    ]
}
S3_TEST = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-01T06:00:00.000Z",
    "Bucket": "landing",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
}
SNS = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:eu-central-1:123456789012:arrivals",
    "Subject": "Amazon S3 Notification",
    "Message": json.dumps(S3),
    "Timestamp": "2026-11-01T06:00:01.000Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLEw6JRN...",
    "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService.pem",
    "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
}
SQS_MESSAGES = {
    "Messages": [
        {"MessageId": "059f36b4", "ReceiptHandle": "AQEBwJ", "Body": json.dumps(S3)},
        {"MessageId": "2e1424d4", "ReceiptHandle": "AQEBzW", "Body": "hello"},
    ]
}
LAMBDA_SQS_SNS = {
    "Records": [
        {
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": json.dumps(SNS),
            "attributes": {"ApproximateReceiveCount": "1"},
            "eventSource": "aws:sqs",
            "awsRegion": "eu-central-1",
        }
    ]
}
LAMBDA_SNS = {
    "Records": [
        {"EventVersion": "1.0", "EventSource": "aws:sns", "Sns": {"Message": json.dumps(S3)}}
    ]
}
EVENTBRIDGE = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2026-11-01T06:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:s3:::landing"],
    "detail": {
        "version": "0",
        "bucket": {"name": "landing"},
        "object": {
            "key": "in/day one/café+1.parquet",
            "size": 1024,
            "etag": "d41d8cd98f00b204e9800998ecf8427e",
            "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
            "sequencer": "0055AED6DCD90281E5",
        },
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "source-ip-address": "192.0.2.7",
        "reason": "PutObject",
    },
}
EVENTBRIDGE_DELETED = {
    **EVENTBRIDGE,
    "detail-type": "Object Deleted",
    "detail": {
        "bucket": {"name": "landing"},
        "object": {"key": "in/a", "version-id": "v1", "sequencer": "00A0"},
        "reason": "DeleteObject",
        "deletion-type": "Permanently Deleted",
    },
}
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "landing/in/day one.csv",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2026-11-01T06:00:00.123Z",
            "eventName": "s3:ObjectCreated:Put",
            "userIdentity": {"principalId": "minioadmin"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": "16B0F3C2", "x-minio-deployment-id": "9d2c"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {"name": "landing", "arn": "arn:aws:s3:::landing"},
                "object": {
                    "key": "in%2Fday+one.csv",
                    "size": 2048,
                    "eTag": "9b2cf535f27731c974343645a3985328",
                    "contentType": "text/csv",
                    "userMetadata": {"content-type": "text/csv"},
                    "sequencer": "16B0F3C2A1B2C3D4",
                },
            },
            "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
        }
    ],
}
MINIO_READ = {
    **MINIO,
    "Records": [{**MINIO["Records"][0], "eventName": "s3:ObjectAccessed:Get"}],  # type: ignore[dict-item]
}
GCS = {
    "specversion": "1.0",
    "id": "2318",
    "type": "google.cloud.storage.object.v1.finalized",
    "source": "//storage.googleapis.com/projects/_/buckets/landing",
    "subject": "objects/in/day one.parquet",
    "time": "2026-11-01T06:00:00.123Z",
    "datacontenttype": "application/json",
    "data": {
        "kind": "storage#object",
        "bucket": "landing",
        "name": "in/day one.parquet",
        "generation": "1761976800123456",
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "timeCreated": "2026-11-01T06:00:00.123Z",
        "size": "1024",
        "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==",
        "crc32c": "AAAAAA==",
        "etag": "CAE=",
    },
}
PUBSUB = {
    "message": {
        "attributes": {
            "bucketId": "landing",
            "eventTime": "2026-11-01T06:00:00.123456Z",
            "eventType": "OBJECT_FINALIZE",
            "notificationConfig": "projects/_/buckets/landing/notificationConfigs/3",
            "objectGeneration": "1761976800123456",
            "objectId": "in/day one.parquet",
            "payloadFormat": "JSON_API_V1",
        },
        "data": base64.b64encode(json.dumps(GCS["data"]).encode()).decode(),
        "messageId": "2070443601311540",
        "publishTime": "2026-11-01T06:00:01.2Z",
    },
    "subscription": "projects/myproject/subscriptions/arrivals",
}
EVENTARC_PUBSUB = {
    "specversion": "1.0",
    "id": "2070443601311540",
    "type": "google.cloud.pubsub.topic.v1.messagePublished",
    "source": "//pubsub.googleapis.com/projects/p/topics/arrivals",
    "data": PUBSUB,
}
PUBSUB_OVERWRITTEN = {
    "message": {
        "attributes": {
            **PUBSUB["message"]["attributes"],  # type: ignore[dict-item,index]
            "eventType": "OBJECT_DELETE",
            "overwrittenByGeneration": "1761976800999999",
        },
    }
}
AZURE_EVENT: dict[str, Any] = {
    "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acme",
    "subject": "/blobServices/default/containers/landing/blobs/in/day one.parquet",
    "eventType": "Microsoft.Storage.BlobCreated",
    "eventTime": "2026-11-01T06:00:00.9584103Z",
    "id": "831e1650-001e-001b-66ab-eeb76e069631",
    "data": {
        "api": "PutBlockList",
        "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
        "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
        "eTag": "0x8D4BCC2E4835CD0",
        "contentType": "application/octet-stream",
        "contentLength": 524288,
        "blobType": "BlockBlob",
        "url": "https://acme.blob.core.windows.net/landing/in/day%20one.parquet",
        "sequencer": "00000000000004420000000000028963",
        "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
    },
    "dataVersion": "",
    "metadataVersion": "1",
}
AZURE = [AZURE_EVENT]
AZURE_CLOUDEVENTS = {
    "source": AZURE_EVENT["topic"],
    "subject": AZURE_EVENT["subject"],
    "type": "Microsoft.Storage.BlobCreated",
    "time": "2026-11-01T06:00:00.9584103Z",
    "id": "831e1650-001e-001b-66ab-eeb76e069631",
    "specversion": "1.0",
    "data": AZURE_EVENT["data"],
}
AZURE_DELETED = [
    {
        **AZURE_EVENT,
        "eventType": "Microsoft.Storage.BlobDeleted",
        "data": {"api": "DeleteBlob", "sequencer": "00000000000004420000000000028964"},
    }
]
OCI = {
    "eventType": "com.oraclecloud.objectstorage.createobject",
    "cloudEventsVersion": "0.1",
    "eventTypeVersion": "2.0",
    "source": "ObjectStorage",
    "eventID": "dead-beef-abcd-1234",
    "eventTime": "2026-11-01T06:00:00.123Z",
    "contentType": "application/json",
    "extensions": {"compartmentId": "ocid1.compartment.oc1..unique_ID"},
    "data": {
        "compartmentId": "ocid1.compartment.oc1..unique_ID",
        "compartmentName": "example_name",
        "resourceName": "in/day one.parquet",
        "resourceId": "/n/acme/b/landing/o/in/day one.parquet",
        "availabilityDomain": "all",
        "additionalDetails": {
            "eTag": "f8ffb6e9-f602-460f-a6c0-00b5abfa24c7",
            "namespace": "acme",
            "bucketName": "landing",
            "bucketId": "ocid1.bucket.oc1.phx.unique_id",
            "archivalState": "Available",
        },
    },
}
EVERY: dict[str, Any] = {
    "s3": S3,
    "s3 removed": S3_REMOVED,
    "s3 test": S3_TEST,
    "sns": SNS,
    "sqs": SQS_MESSAGES,
    "lambda sqs sns": LAMBDA_SQS_SNS,
    "lambda sns": LAMBDA_SNS,
    "eventbridge": EVENTBRIDGE,
    "eventbridge deleted": EVENTBRIDGE_DELETED,
    "minio": MINIO,
    "minio read": MINIO_READ,
    "gcs": GCS,
    "pubsub": PUBSUB,
    "eventarc pubsub": EVENTARC_PUBSUB,
    "pubsub overwritten": PUBSUB_OVERWRITTEN,
    "azure": AZURE,
    "azure cloudevents": AZURE_CLOUDEVENTS,
    "azure deleted": AZURE_DELETED,
    "oci": OCI,
}
