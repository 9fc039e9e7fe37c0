"""Send a DPORun to the API server as a dry run: the right one must be accepted with defaults, a wrong one refused."""
# ruff: noqa: S310, T201

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def create(run):
    """POST ``run`` with dryRun=All; return the status code and the answer."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    namespace = (ACCOUNT / "namespace").read_text()
    request = urllib.request.Request(
        f"https://{host}:{port}/apis/dporun.io/v1alpha1/namespaces/{namespace}/dporuns?dryRun=All&fieldValidation=Strict",
        data=json.dumps(run).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/json",
        },
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=context) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def main():
    """Try both."""
    run = json.loads(Path(sys.argv[1]).read_text())
    code, answer = create(run)
    if code != 201:
        sys.exit(f"the API server refused the example: {answer.get('message')}")
    print("accepted:", json.dumps(answer["spec"]["training"]))
    run["spec"]["training"]["epochs"] = -1
    code, answer = create(run)
    if code != 422 or "epochs" not in answer["message"]:
        sys.exit(f"the API server did not refuse a negative number of epochs: {code} {answer.get('message')}")
    print("refused:", answer["message"])


main()
