"""gcp-storage-emulator with what it lacks of Google's: conditions on the generation of an object.

Run as a process: `python emulator.py PORT BUCKET`. It serves one request at a time, so that a condition and
what depends on it cannot be torn apart.
"""

import json
import logging
import sys
import time
from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def conditional(handler, name_of):
    """Answer 412 where Google does: the object has another generation than the request asks for."""

    def answer(request, response, storage, *args, **kwargs):
        wanted = request.query.get("ifGenerationMatch")
        if wanted:
            try:
                found = storage.get_file_obj(request.params["bucket_name"], name_of(request))["generation"]
            except NotFound:
                found = "0"
            if found != wanted[0]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return response.json({"error": {"code": 412, "message": "conditionNotMet"}})
        return handler(request, response, storage, *args, **kwargs)

    return answer


def uploaded(request):
    return request.query["name"][0] if "name" in request.query else request.data["meta"]["name"]


def deleted(request):
    return request.params["object_id"]


def main():
    logging.disable(logging.CRITICAL)
    insert, delete = conditional(objects.insert, uploaded), conditional(objects.delete, deleted)
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = {objects.insert: insert, objects.delete: delete}.get(handler, handler)
    running = server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket=sys.argv[2])
    running.start()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
