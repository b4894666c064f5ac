# PyPI's pusher publishes and asks on one node, pysher listens on the other.
#
# Lives here: scenarios; each is a function that raises when something is not as it should be.
# Called by: tests/src/scenario.rs, with the name of a scenario; the servers are in the environment.
# Must not know: where the servers are.

import base64
import http.server
import json
import os
import secrets
import sys
import threading
import time

import pusher
import pysher

PATIENCE_SECONDS = 30
LOOK_AGAIN_SECONDS = 0.01

WORLD = json.loads(os.environ["CARILLON"])
APP = WORLD["apps"]["first"]


def backend(node=0, **more):
    host, port = WORLD["nodes"][node]["api"].split(":")
    options = dict(app_id=APP["id"], key=APP["key"], secret=APP["secret"], ssl=False, host=host, port=int(port), timeout=30)
    return pusher.Pusher(**{**options, **more})


def until(what, look):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(LOOK_AGAIN_SECONDS)
    return found


def unique(name):
    return f"{name}-{secrets.token_hex(6)}"


class Listener:
    """A connection of pysher, and what it has heard: channel, event, data as text."""

    def __init__(self, node=1, user_id="ana"):
        host, port = WORLD["nodes"][node]["public"].split(":")
        me = {"user_id": user_id, "user_info": {"name": user_id.title()}}
        self.heard = []
        self.errors = []
        self.pusher = pysher.Pusher(
            APP["key"], custom_host=host, port=int(port), secure=False, secret=APP["secret"], user_data=me)
        self.pusher.connection.bind("pusher:error", self.errors.append)
        # pysher knows a channel, and what is bound to it, only after it has asked to join: the answer may be there before.
        self.joined = {}
        hand_on = self.pusher.connection.event_handler

        def note(event, data, channel):
            if event == "pusher_internal:subscription_succeeded":
                self.joined[channel] = data
            hand_on(event, data, channel)

        self.pusher.connection.event_handler = note
        self.pusher.connect()
        until("a connection", lambda: self.pusher.connection.state == "connected")

    @property
    def socket_id(self):
        return self.pusher.connection.socket_id

    def join(self, name, events, auth=None):
        channel = self.pusher.subscribe(name, auth)
        for event in events:
            channel.bind(event, lambda data, event=event: self.heard.append((name, event, data)))
        until(f"a subscription of {name}: {self.errors}", lambda: name in self.joined)
        return channel, self.joined[name]

    def of(self, event):
        return [data for _, heard, data in self.heard if heard == event]


def every_byte_arrives():
    listener = Listener()
    texts = ['{ "a" : 1,\t"b":"\\u00e9é", "a":2 }', "plain", "", '"', "🔔 \u2028", "x" * 10_240, "5", "null"]
    for kind in ["", "private-", "presence-"]:
        name = unique(f"{kind}bytes")
        listener.join(name, ["data", "end"])
        for text in texts:
            assert backend().trigger(name, "data", text) == {}
        backend().trigger(name, "end", {"é": [1, None]})
        until(f"the end of {name}", lambda: (name, "end", '{"é": [1, null]}') in listener.heard)
        assert [data for at, event, data in listener.heard if (at, event) == (name, "data")] == texts
    assert listener.errors == []


def a_batch_arrives_in_its_order():
    listener = Listener()
    names = [unique("one"), unique("private-other")]
    for name in names:
        listener.join(name, ["n"])
    batch = [{"channel": names[n % 2], "name": "n", "data": {"n": n}} for n in range(10)]
    assert backend().trigger_batch(batch) == {}
    until("ten events", lambda: len(listener.of("n")) == 10)
    for side in (0, 1):
        heard = [json.loads(data)["n"] for at, event, data in listener.heard if (at, event) == (names[side], "n")]
        assert heard == [n for n in range(10) if n % 2 == side], heard


def members_come_and_go():
    name = unique("presence-room")
    ana, ben = Listener(0, "ana"), Listener(1, "ben")
    moves = ["pusher_internal:member_added", "pusher_internal:member_removed"]
    _, there = ana.join(name, moves)
    info = {"name": "Ana"}
    assert json.loads(there) == {"presence": {"ids": ["ana"], "hash": {"ana": info}, "count": 1}}, there
    # What one node has said, the other may know a moment later.
    backend_there = backend(1)
    until("Ana on the other node", lambda: backend_there.users_info(name)["users"] == [{"id": "ana"}])
    _, there = ben.join(name, moves)
    there = json.loads(there)["presence"]
    assert sorted(there["ids"]) == ["ana", "ben"] and there["count"] == 2, there
    assert there["hash"] == {"ana": info, "ben": {"name": "Ben"}}, there
    added = until("Ben", lambda: ana.of("pusher_internal:member_added"))
    assert [json.loads(data) for data in added] == [{"user_id": "ben", "user_info": {"name": "Ben"}}], added
    # Its thread may sleep on.
    ben.pusher.disconnect(1)
    removed = until("Ben has left", lambda: ana.of("pusher_internal:member_removed"))
    assert [json.loads(data) for data in removed] == [{"user_id": "ben"}], removed
    assert ben.of("pusher_internal:member_added") == []


def what_a_client_says_arrives_as_text():
    name = unique("private-chat")
    ana, ben = Listener(0), Listener(1)
    channel, _ = ana.join(name, ["client-said", "client-end"])
    answers, _ = ben.join(name, ["client-said"])
    said = [{"text": "é"}, "plain", [1, 2]]
    for data in said:
        channel.trigger("client-said", data)
    until("what was said", lambda: len(ben.of("client-said")) == len(said))
    heard = ben.of("client-said")
    assert [json.loads(heard[0]), heard[1], json.loads(heard[2])] == said, heard
    assert all(isinstance(data, str) for data in heard), heard
    answers.trigger("client-end", {})
    until("an answer", lambda: ana.of("client-end"))
    assert ana.of("client-said") == []


def a_signature_of_the_backend_opens_a_channel():
    listener = Listener()
    name = unique("private-signed")
    auth = backend().authenticate(name, listener.socket_id)["auth"]
    listener.join(name, ["data"], auth)
    backend().trigger(name, "data", "in")
    until("an event", lambda: listener.of("data") == ["in"])
    forged = backend(secret="not the secret of this application")
    listener.pusher.subscribe(unique("private-forged"), forged.authenticate(name, listener.socket_id)["auth"])
    error = until("an error", lambda: listener.errors)[0]
    assert error["code"] is None and error["message"].startswith("Invalid signature: "), error


def who_said_it_does_not_hear_it():
    name = unique("excluded")
    said, other = Listener(), Listener()
    for listener in (said, other):
        listener.join(name, ["data", "end"])
    backend().trigger(name, "data", "x", said.socket_id)
    backend().trigger(name, "end", "")
    for listener in (said, other):
        until("the end", lambda: listener.of("end"))
    assert (said.of("data"), other.of("data")) == ([], ["x"])


def encrypted_data_is_not_read_on_the_way():
    name = unique("private-encrypted-safe")
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    listener = Listener()
    sealing = backend(encryption_master_key_base64=key)
    listener.join(name, ["sealed"], sealing.authenticate(name, listener.socket_id)["auth"])
    assert sealing.trigger(name, "sealed", {"secret": 7}) == {}
    sealed = json.loads(until("an event", lambda: listener.of("sealed"))[0])
    assert sorted(sealed) == ["ciphertext", "nonce"], sealed


def what_is_asked_is_answered():
    asking = backend(1)
    prefix = unique("presence-asked")
    assert asking.channels_info(prefix) == {"channels": {}}
    assert asking.channel_info(prefix) == {"occupied": False}
    assert asking.users_info(prefix) == {"users": []}
    tabs = [Listener(0, "ana"), Listener(1, "ana"), Listener(1, "ben")]
    for tab in tabs:
        tab.join(prefix, [])
    counted = {"user_count": 2, "subscription_count": 3}
    both = ["user_count", "subscription_count"]
    until("both users", lambda: asking.channel_info(prefix, both) == {"occupied": True, **counted})
    until("both counts", lambda: asking.channels_info(prefix, both) == {"channels": {prefix: counted}})
    until("the channel", lambda: asking.channels_info(prefix) == {"channels": {prefix: {}}})
    assert sorted(user["id"] for user in asking.users_info(prefix)["users"]) == ["ana", "ben"]
    # This client leaves the application out of the path.
    assert asking.terminate_user_connections(unique("nobody")) == {}


def refused(what, call, error, says):
    try:
        answer = call()
    except error as refusal:
        assert says in str(refusal), f"{what}: {refusal}"
    else:
        raise AssertionError(f"{what} is answered with {answer}")


def what_is_wrong_is_refused():
    from pusher import errors
    event = {"channel": unique("wrong"), "name": "x", "data": "y"}
    refused("a batch of 11", lambda: backend().trigger_batch([dict(event) for _ in range(11)]), errors.PusherBadRequest, "Batch too large")
    refused("too much data", lambda: backend().trigger(event["channel"], "x", "y" * 10_241), errors.PusherBadStatus, "413: ")
    refused("users of a public channel", lambda: backend().users_info("wrong"), errors.PusherBadRequest, "")
    refused("counts of users everywhere", lambda: backend().channels_info(None, ["user_count"]), errors.PusherBadRequest, "")
    refused("a wrong secret", lambda: backend(secret="wrong").users_info("presence-x"), errors.PusherBadAuth, "Invalid signature")
    refused("a wrong key", lambda: backend(key="wrong").trigger("x", "x", "x"), errors.PusherBadAuth, "")
    refused("a long name", lambda: backend().trigger("x" * 165, "x", "x"), errors.PusherBadRequest, "")


def a_webhook_is_believed():
    told, doubted = [], []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            signature = self.headers["X-Pusher-Signature"]
            believed = backend().validate_webhook(self.headers["X-Pusher-Key"], signature, body)
            told.extend(believed["events"] if believed else [])
            if backend().validate_webhook(APP["key"], signature, body + " "):
                doubted.append(body)
            self.send_response(200 if believed else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    host, port = os.environ["WEBHOOK"].split(":")
    site = http.server.ThreadingHTTPServer((host, int(port)), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    name = unique("told")
    Listener().join(name, [])
    until("a webhook", lambda: {"name": "channel_occupied", "channel": name} in told)
    assert doubted == []


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("passed", flush=True)
    # pysher's threads wait for more.
    os._exit(0)
