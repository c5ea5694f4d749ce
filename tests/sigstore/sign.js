// Signs what standard input asks for, with a Fulcio, a Rekor and a trust root of @sigstore/mock.
//
// Input: a JSON object; by name {identity, issuer, kind: "hashedrekord" | "dsse", content: base64,
// late: minutes after the certificate at which the log says that it saw the signature, rekor: 1 or 2}.
// Output: {trustedRoot, signatures: by name {certificate: DER in base64, chain: PEM, signature:
// base64, entry: Rekor's own answer, timestamp: RFC 3161, in base64, with Rekor 2}}.
// tests/sigstore/__init__.py makes cosign's formats of it.
'use strict';

const crypto = require('node:crypto');
const mock = require('@sigstore/mock');

const PAYLOAD_TYPE = 'application/vnd.in-toto+json';
const REKOR = 'https://rekor.sigstore.dev';

// https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
function preAuthentication(payload) {
  const head = `DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `;
  return Buffer.concat([Buffer.from(head), payload]);
}

const sha256 = (content) => crypto.createHash('sha256').update(content).digest('hex');
const pair = () => crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const spki = (keys) => keys.publicKey.export({ format: 'der', type: 'spki' });
const bare = (header, body) => `${header}.${Buffer.from(JSON.stringify(body)).toString('base64url')}.`;

// Rekor 2's entry for a DSSE envelope: the log has the digest of what was signed.
// https://github.com/sigstore/rekor-tiles/blob/main/api/proto/rekor/v2/hashedrekord.proto
async function logged2(log, certificate, signed, signature) {
  const tlog = await mock.initializeTLog('https://log2025-1.rekor.sigstore.dev', log);
  const entry = await tlog.logV2({
    apiVersion: '0.0.2',
    kind: 'hashedrekord',
    spec: {
      hashedRekordV002: {
        data: { algorithm: 'SHA2_256', digest: Buffer.from(sha256(signed), 'hex').toString('base64') },
        signature: {
          content: signature,
          verifier: {
            keyDetails: 'PKIX_ECDSA_P256_SHA_256',
            x509Certificate: { rawBytes: certificate.raw.toString('base64') },
          },
        },
      },
    },
  });
  const proof = entry.inclusionProof;
  return {
    entry: {
      logIndex: '0', // the mock's log has one entry, whatever number it gives it
      logId: { keyId: entry.logId.keyId.toString('base64') },
      kindVersion: { kind: 'hashedrekord', version: '0.0.2' },
      inclusionProof: {
        logIndex: '0',
        rootHash: createRoot(entry.canonicalizedBody),
        treeSize: '1',
        hashes: [],
        checkpoint: { envelope: proof.checkpoint.envelope },
      },
      canonicalizedBody: entry.canonicalizedBody.toString('base64'),
    },
  };
}

function createRoot(body) {
  return crypto.createHash('sha256').update(Buffer.from([0])).update(body).digest('base64');
}

async function stamped(tsa, signature) {
  const answer = await mock.tsaHandler(tsa).fn(JSON.stringify({
    artifactHash: Buffer.from(sha256(Buffer.from(signature, 'base64')), 'hex').toString('base64'),
    hashAlgorithm: 'sha256',
    certificates: true,
    nonce: 1234567890,
  }));
  return Buffer.from(answer.response).toString('base64');
}

async function main(requests) {
  const [authority, transparency, log, stamps] = [pair(), pair(), pair(), pair()];
  const tsa = await mock.initializeTSA(stamps);
  const start = new Date(Date.now() - 60_000); // time stamps have whole seconds
  const ctlog = await mock.initializeCTLog(transparency);
  const ca = await mock.initializeCA(authority, ctlog);
  const fulcio = mock.fulcioHandler(ca);
  const signatures = {};
  for (const [name, wanted] of Object.entries(requests)) {
    const keys = pair();
    const pem = keys.publicKey.export({ format: 'pem', type: 'spki' });
    const token = bare('e30', { sub: wanted.identity, iss: wanted.issuer });
    const issued = await fulcio.fn(JSON.stringify({
      credentials: { oidcIdentityToken: token },
      publicKeyRequest: { publicKey: { algorithm: 'ECDSA', content: pem } },
    }));
    const [leaf, root] = JSON.parse(issued.response).signedCertificateEmbeddedSct.chain.certificates;
    const certificate = new crypto.X509Certificate(leaf);
    const lines = certificate.raw.toString('base64').match(/.{1,64}/g);
    const text = ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
    const verifier = Buffer.from(text).toString('base64'); // as Go's encoding/pem writes it
    const content = Buffer.from(wanted.content, 'base64');
    const signed = wanted.kind === 'dsse' ? preAuthentication(content) : content;
    const signature = crypto.sign('sha256', signed, keys.privateKey).toString('base64');
    const entry = wanted.kind === 'dsse' ? {
      apiVersion: '0.0.1',
      kind: 'dsse',
      spec: {
        envelopeHash: { algorithm: 'sha256', value: sha256(content) },
        payloadHash: { algorithm: 'sha256', value: sha256(content) },
        signatures: [{ signature, verifier }],
      },
    } : {
      apiVersion: '0.0.1',
      kind: 'hashedrekord',
      spec: {
        data: { hash: { algorithm: 'sha256', value: sha256(content) } },
        signature: { content: signature, publicKey: { content: verifier } },
      },
    };
    const clock = new Date(Date.now() + (wanted.late || 0) * 60_000);
    if (wanted.rekor === 2) {
      signatures[name] = {
        certificate: certificate.raw.toString('base64'),
        chain: root,
        signature,
        ...await logged2(log, certificate, signed, signature),
        timestamp: await stamped(tsa, signature),
      };
      continue;
    }
    const rekor = mock.rekorHandler(await mock.initializeTLog(REKOR, log, clock));
    const answer = await rekor.fn(JSON.stringify(entry));
    signatures[name] = {
      certificate: certificate.raw.toString('base64'),
      chain: root,
      signature,
      entry: JSON.parse(answer.response),
    };
  }
  const key = (keys) => ({
    rawBytes: spki(keys).toString('base64'),
    keyDetails: 'PKIX_ECDSA_P256_SHA_256',
    validFor: { start },
  });
  const instance = (baseUrl, keys) => ({
    baseUrl,
    hashAlgorithm: 'SHA2_256',
    publicKey: key(keys),
    logId: { keyId: Buffer.from(sha256(spki(keys)), 'hex').toString('base64') },
  });
  const trustedRoot = {
    mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
    tlogs: [instance(REKOR, log)],
    certificateAuthorities: [{
      subject: { organization: 'sigstore.mock', commonName: 'sigstore' },
      uri: 'https://fulcio.sigstore.dev',
      certChain: { certificates: [{ rawBytes: Buffer.from(ca.rootCertificate).toString('base64') }] },
      validFor: { start },
    }],
    ctlogs: [instance('https://ctfe.sigstore.dev', transparency)],
    timestampAuthorities: [{
      subject: { organization: 'sigstore.mock', commonName: 'tsa' },
      uri: 'https://timestamp.sigstore.dev',
      certChain: {
        certificates: [tsa.intCertificate, tsa.rootCertificate].map((certificate) => ({
          rawBytes: Buffer.from(certificate).toString('base64'),
        })),
      },
      validFor: { start },
    }],
  };
  process.stdout.write(JSON.stringify({ trustedRoot, signatures }));
}

let text = '';
process.stdin.on('data', (chunk) => { text += chunk; });
process.stdin.on('end', () => main(JSON.parse(text)));
