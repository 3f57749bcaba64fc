"""POSTs to Node's server, with pauses around the time after which it closes a connection: none may fail, none be sent twice."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import requests

CLIENTS = 10
POSTS = 5


def client(number):
    chance = random.Random(number)
    with requests.Session() as session:
        for post in range(POSTS):
            answer = session.post("http://node:3000/", data=b"x" * post, timeout=50)
            assert (answer.status_code, answer.text) == (200, f"POST {post}"), (number, post, answer.text, answer.headers)
            sleep(chance.uniform(0.9, 1.1))


with ThreadPoolExecutor(CLIENTS) as pool:
    list(pool.map(client, range(CLIENTS)))
print("done")
