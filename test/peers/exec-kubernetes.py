"""The Python client of Kubernetes, as its users write it: a program executed over a WebSocket. argv: URL, token."""
import sys

from kubernetes.client import Configuration
from kubernetes.stream.ws_client import WSClient

url, token = sys.argv[1:]
configuration = Configuration()
configuration.verify_ssl = False
client = WSClient(configuration, url, {"authorization": "Bearer " + token}, capture_all=False)
client.write_stdin("typed\n")
# Its readline forgets what it has read once it has seen the connection's end: lines are read after that.
client.run_forever(timeout=60)
print("stdout", repr(client.read_stdout()))
print("stderr", repr(client.read_stderr()))
print("protocol", client.subprotocol)
print("code", client.returncode)
