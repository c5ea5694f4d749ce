BEGIN TRANSACTION;
CREATE TABLE clock (run TEXT PRIMARY KEY, at TEXT NOT NULL);
INSERT INTO "clock" VALUES('weekly','2026-11-22T23:30:00.000000+00:00');
CREATE TABLE deliveries (id TEXT PRIMARY KEY, received TEXT NOT NULL, jobs TEXT NOT NULL);
INSERT INTO "deliveries" VALUES('delivery','2026-11-23T08:00:00.000000+00:00','["queued"]');
CREATE TABLE jobs (
        id TEXT PRIMARY KEY, reference TEXT NOT NULL, cause TEXT NOT NULL, state TEXT NOT NULL,
        created TEXT NOT NULL, started TEXT, finished TEXT,
        result TEXT, message TEXT, volumes TEXT
    );
INSERT INTO "jobs" VALUES('done','ghcr.io/acme/base:latest','schedule','done','2026-11-22T23:30:00.000000+00:00','2026-11-22T23:30:01.000000+00:00','2026-11-22T23:31:05.000000+00:00','published','it is published','["cephfs:vztmpl/ghcr.io_acme_base_latest_0123456789ab.tar.zst"]');
INSERT INTO "jobs" VALUES('queued','ghcr.io/acme/base','webhook','queued','2026-11-23T08:00:00.000000+00:00',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE templates (
        target TEXT NOT NULL, name TEXT NOT NULL, reference TEXT NOT NULL, format TEXT NOT NULL,
        platform TEXT NOT NULL, digest TEXT NOT NULL, manifest_digest TEXT NOT NULL,
        config_digest TEXT NOT NULL,
        diff_ids TEXT NOT NULL, file_digest TEXT NOT NULL, size INTEGER NOT NULL,
        created TEXT NOT NULL, volumes TEXT NOT NULL, syncd_version TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0, published INTEGER NOT NULL,
        PRIMARY KEY (target, name, reference)
    );
INSERT INTO "templates" VALUES('cephfs','ghcr.io_acme_base_latest_0123456789ab.tar.zst','ghcr.io/acme/base:latest','rootfs','linux/amd64','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','["sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"]','sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',123456789,'2026-11-22T23:31:05.000000+00:00','["cephfs:vztmpl/ghcr.io_acme_base_latest_0123456789ab.tar.zst"]','0.1.0',1,1);
INSERT INTO "templates" VALUES('cephfs','ghcr.io_acme_base_next_ba9876543210.tar.zst','ghcr.io/acme/base:next','rootfs','linux/amd64','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','["sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"]','sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',123456789,'2026-11-22T23:31:05.000000+00:00','[]','0.1.0',0,0);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_time ON jobs (created);
CREATE INDEX templates_by_reference ON templates (reference);
COMMIT;
PRAGMA user_version = 1;
