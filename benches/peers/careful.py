"""A relay as people build it: MQTT with QoS 1, and PUBACK only after the device has answered on its serial port.

    careful.py HOST PORT CA|- TOPIC=TTY...

On the port a message is its length in two octets, then its content; the device answers with one octet.
"""

import socket
import sys

import paho.mqtt.client as mqtt
import serial

host, port, ca = sys.argv[1:4]
devices = {topic: serial.Serial(tty, timeout=30) for topic, tty in (pair.split("=") for pair in sys.argv[4:])}


def on_connect(client, *_):
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.subscribe([(topic, 1) for topic in devices])


def on_subscribe(*_):
    print("ready", flush=True)


def on_message(client, userdata, message):
    """The library sends PUBACK when this returns."""
    device = devices[message.topic]
    device.write(len(message.payload).to_bytes(2, "big") + message.payload)
    if device.read(1) != b"\x06":
        sys.exit(f"{message.topic}: no answer")


versions = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []
client = mqtt.Client(*versions, client_id="careful", clean_session=False)
if ca != "-":
    client.tls_set(ca)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port))
client.loop_forever()
