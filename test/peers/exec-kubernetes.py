"""The Python client of Kubernetes, as its users write it: a program executed over a WebSocket. argv: URL, token."""
import sys

from kubernetes.client import Configuration
from kubernetes.stream.ws_client import WSClient

url, token = sys.argv[1:]
configuration = Configuration()
configuration.verify_ssl = False
client = WSClient(configuration, url, {"authorization": "Bearer " + token}, capture_all=False)
client.write_stdin("typed\n")
print("stdout", repr(client.readline_stdout(timeout=60)))
print("stderr", repr(client.readline_stderr(timeout=60)))
client.run_forever(timeout=60)
print("protocol", client.subprotocol)
print("code", client.returncode)
