"""Signs everything in REQUESTS anew."""

from __future__ import annotations

import json

from tests.sigstore import DATA, REQUESTS, ROOT, sign

signed = sign(REQUESTS)
DATA.mkdir(exist_ok=True)
ROOT.write_text(json.dumps(signed["trustedRoot"], indent=1) + "\n")
(DATA / "signatures.json").write_text(json.dumps(signed["signatures"], indent=1) + "\n")
