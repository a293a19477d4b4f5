-- What each side keeps: its goods, what it has received, and the evidence of what it did. A call of one of these functions
-- is one transaction: the effect, its evidence and the memory of the idempotent receiver stand or fall together.

CREATE TABLE goods (sku int PRIMARY KEY, level int NOT NULL, version int NOT NULL);
CREATE TABLE received (message int, effect text, result text, level int, version int, PRIMARY KEY (message, effect));
CREATE TABLE effects (message int, effect text, sku int, version int, change int, at bigint, delivery smallint,
                      nth bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE parked (message int, effect text, delivery smallint, at bigint);

-- The state before a run: these levels, as version 0, and nothing else.
CREATE FUNCTION start_over(_levels int[]) RETURNS void AS $$
BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') FROM pg_tables
             WHERE schemaname = current_schema());
    INSERT INTO goods SELECT k - 1, level, 0 FROM unnest(_levels) WITH ORDINALITY AS t (level, k);
END $$ LANGUAGE plpgsql;

-- A stock update at accounting, when it is issued: a new level and version.
CREATE FUNCTION change_stock(_message int, _sku int, _change int, _at bigint, OUT _level int, OUT _version int) AS $$
BEGIN
    UPDATE goods SET level = level + _change, version = version + 1 WHERE sku = _sku
        RETURNING level, version INTO _level, _version;
    INSERT INTO effects VALUES (_message, 'issued', _sku, _version, _change, _at, 1);
END $$ LANGUAGE plpgsql;

-- An order at accounting takes units, or is rejected where there are too few, or where it is `_refused`. With `_once`, an order that was received before
-- changes nothing and gets its first answer again.
CREATE FUNCTION take_stock(_message int, _sku int, _quantity int, _at bigint, _delivery int, _once bool,
                           _refused bool, OUT _result text, OUT _level int, OUT _version int, OUT _again bool) AS $$
BEGIN
    SELECT level, version INTO _level, _version FROM goods WHERE sku = _sku FOR UPDATE;
    IF _once THEN
        SELECT result, level, version, true INTO _result, _level, _version, _again FROM received
            WHERE message = _message AND effect = 'taken';
        IF FOUND THEN RETURN; END IF;
    END IF;
    SELECT level, version, false INTO _level, _version, _again FROM goods WHERE sku = _sku;
    IF _level >= _quantity AND NOT _refused THEN
        _result := 'taken';
        UPDATE goods SET level = level - _quantity, version = version + 1 WHERE sku = _sku
            RETURNING level, version INTO _level, _version;
        INSERT INTO effects VALUES (_message, 'taken', _sku, _version, -_quantity, _at, _delivery);
    ELSE
        _result := 'rejected';
        INSERT INTO effects VALUES (_message, 'rejected', _sku, _version, 0, _at, _delivery);
    END IF;
    IF _once THEN INSERT INTO received VALUES (_message, 'taken', _result, _level, _version); END IF;
END $$ LANGUAGE plpgsql;

-- A level that accounting tells the shop, by an update (effect 'copied') or after an order ('announced'). With `_newer` a level
-- that is older than the copy is not written; with `_once`, one that was received before is not written again.
CREATE FUNCTION write_copy(_message int, _effect text, _sku int, _to int, _of int, _change int, _at bigint, _delivery int,
                           _once bool, _newer bool, OUT _result text) AS $$
BEGIN
    IF _once THEN
        INSERT INTO received VALUES (_message, _effect) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN _result := 'received before'; RETURN; END IF;
    END IF;
    UPDATE goods SET level = _to, version = _of WHERE sku = _sku AND (version < _of OR NOT _newer);
    _result := CASE WHEN FOUND THEN _effect ELSE 'superseded' END;
    INSERT INTO effects VALUES (_message, _result, _sku, _of, _change, _at, _delivery);
END $$ LANGUAGE plpgsql;

-- The shop promises units to a customer from its own copy, where that shows enough of them.
CREATE FUNCTION promise(_sku int, _quantity int, OUT _promised bool) AS $$
BEGIN
    UPDATE goods SET level = level - _quantity WHERE sku = _sku AND level >= _quantity;
    _promised := FOUND;
END $$ LANGUAGE plpgsql;

-- A further step of an order, at the service that does it: done, or rejected where it is `_refused`. With `_once` as above.
CREATE FUNCTION do_step(_message int, _effect text, _sku int, _version int, _at bigint, _delivery int, _once bool,
                        _refused bool, OUT _result text) AS $$
BEGIN
    _result := CASE WHEN _refused THEN 'rejected' ELSE _effect END;
    IF _once THEN
        INSERT INTO received VALUES (_message, _effect, _result) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT result INTO _result FROM received WHERE message = _message AND effect = _effect;
            RETURN;
        END IF;
    END IF;
    INSERT INTO effects VALUES (_message, _result, _sku, _version, 0, _at, _delivery);
END $$ LANGUAGE plpgsql;

-- A step of an order is taken back, with `_units` for the stock. With `_once`, a step that was not done is rejected from now
-- on, and one that was undone before changes nothing and gets its first answer again.
CREATE FUNCTION undo_step(_message int, _effect text, _sku int, _of int, _units int, _at bigint, _delivery int, _once bool,
                          OUT _result text, OUT _level int, OUT _version int) AS $$
DECLARE
    _undone text := _effect || '.undone';
BEGIN
    PERFORM 1 FROM goods WHERE sku = _sku FOR UPDATE;
    IF _once THEN
        INSERT INTO received VALUES (_message, _effect, 'rejected') ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO effects VALUES (_message, 'rejected', _sku, _of, 0, _at, _delivery);
        END IF;
        SELECT result INTO _result FROM received WHERE message = _message AND effect = _effect;
        IF _result = 'rejected' THEN RETURN; END IF;
        SELECT result, level, version INTO _result, _level, _version FROM received
            WHERE message = _message AND effect = _undone;
        IF FOUND THEN RETURN; END IF;
    END IF;
    _result := _undone;
    _level := -1;
    _version := _of;
    IF _units > 0 THEN
        UPDATE goods SET level = level + _units, version = version + 1 WHERE sku = _sku
            RETURNING level, version INTO _level, _version;
    END IF;
    INSERT INTO effects VALUES (_message, _undone, _sku, _version, _units, _at, _delivery);
    IF _once THEN INSERT INTO received VALUES (_message, _undone, _undone, _level, _version); END IF;
END $$ LANGUAGE plpgsql;
