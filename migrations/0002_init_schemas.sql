-- The schemas of the serving layer. ADLS/Delta stays canonical: all of them can be built again from it.
CREATE SCHEMA IF NOT EXISTS core;        -- reference data and shared state
CREATE SCHEMA IF NOT EXISTS backtest;    -- runs and results of the backtest service
CREATE SCHEMA IF NOT EXISTS monitoring;  -- health and freshness
CREATE SCHEMA IF NOT EXISTS gold;        -- served copies of the gold layer
CREATE SCHEMA IF NOT EXISTS platinum;    -- served copies of the platinum layer

COMMENT ON SCHEMA core IS 'Reference data and shared state.';
COMMENT ON SCHEMA backtest IS 'Runs and results of the backtest service.';
COMMENT ON SCHEMA monitoring IS 'Health and freshness of what is served.';
COMMENT ON SCHEMA gold IS 'Served copies of the gold layer; Delta is canonical.';
COMMENT ON SCHEMA platinum IS 'Served copies of the platinum layer; Delta is canonical.';
