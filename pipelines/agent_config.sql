-- The configuration of the agents: one row for each. pipelines/config.toml brings every change of this table to
-- ZooKeeper, where the agents watch. The server's binary log must be on, with binlog_format = ROW and
-- binlog_row_image = FULL, for Canal to read it.
--
-- A table that was made before it had the column `paused` gets it so; until then its rows are rejected, and the log names
-- the missing column:
--   ALTER TABLE agent_config ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE;
CREATE TABLE IF NOT EXISTS agent_config (
  agent     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL
            COMMENT 'name of the agent, AGENT where it runs; no slash',
  interface VARCHAR(64)  NOT NULL DEFAULT 'any'
            COMMENT 'network interface to capture on; any: all of them',
  filter    VARCHAR(4096) NOT NULL DEFAULT ''
            COMMENT 'BPF filter, pcap-filter(7); empty: everything',
  server    VARCHAR(512) NOT NULL
            COMMENT 'URL of the receiver, as http://receiver.example:8080',
  paused    BOOLEAN      NOT NULL DEFAULT FALSE
            COMMENT 'true: the agent captures nothing until this changes',
  PRIMARY KEY (agent)
) DEFAULT CHARACTER SET utf8mb4 COMMENT 'configuration of the Millrace agents';
