-- A further step of an order, at the service that does it: done, or rejected where it is `_refused`. It is evidence and no event: the
-- services that do it keep no events. Nobody asks for it twice, so that it is not remembered, whatever `_once` says.
CREATE FUNCTION do_step(_message int, _effect text, _sku int, _version int, _at bigint, _delivery int, _once bool,
                        _refused bool, OUT _result text) AS $$
BEGIN
    _result := CASE WHEN _refused THEN 'rejected' ELSE _effect END;
    INSERT INTO written VALUES (_message, _result, _sku, _version, 0, _at, _delivery);
END $$ LANGUAGE plpgsql;
