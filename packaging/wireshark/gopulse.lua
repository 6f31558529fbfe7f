-- Fields for Wireshark from what gopulse wrote into a capture: the comments on packets, and the rows
-- (systemd journal entries) between them.
--
--   wireshark -X lua_script:gopulse.lua capture.pcapng
--   tshark -X lua_script:gopulse.lua -r capture.pcapng -Y 'gopulse.rule == "proxy-timeout"'
--
-- In: frame.comment and systemd_journal.*. Out: gopulse.*. A packet without them, or with comments of
-- somebody else, gets no fields. A packet may have several of each: on one host both ends of a connection
-- speak of the same packet.

local gopulse = Proto("gopulse", "gopulse")

local fields = {
    finding = ProtoField.string("gopulse.finding", "Finding"),
    rule = ProtoField.string("gopulse.rule", "Rule"),
    severity = ProtoField.string("gopulse.severity", "Severity"),
    event = ProtoField.string("gopulse.event", "Event"),
    told = ProtoField.string("gopulse.told", "Told"),
    process = ProtoField.string("gopulse.process", "Process"),
    pid = ProtoField.uint32("gopulse.pid", "Process id"),
    goid = ProtoField.uint64("gopulse.goid", "Goroutine"),
    client = ProtoField.string("gopulse.client", "Client"),
    server = ProtoField.string("gopulse.server", "Server"),
}
gopulse.fields = fields

local comments = Field.new("frame.comment")
local names = Field.new("systemd_journal.field.name")
local values = Field.new("systemd_journal.field.value")
local message = Field.new("systemd_journal.message")
local journal_pid = Field.new("systemd_journal.pid")
local journal_comm = Field.new("systemd_journal.comm")

-- The fields of our own that a row has.
local row_fields = {
    GOPULSE_FINDING = fields.finding,
    GOPULSE_RULE = fields.rule,
    GOPULSE_SEVERITY = fields.severity,
    GOPULSE_EVENT = fields.event,
    GOPULSE_GOID = fields.goid,
    GOPULSE_CLIENT = fields.client,
    GOPULSE_SERVER = fields.server,
}

-- A number as its field wants it; nothing where the digits are too many to be one of ours.
local function number(field, digits)
    if field == fields.goid then
        return #digits <= 20 and UInt64.new(digits) or nil
    end
    local value = tonumber(digits)
    return value and value < 2 ^ 32 and value or nil
end

-- What a comment says; each form begins or ends with words that no name can bring in.
local function parse(comment)
    local finding, rule, severity, told = comment:match("^gopulse (f%d+), ([%l-]+), (%l+): (.*)$")
    if finding then
        return {
            { fields.finding, finding },
            { fields.rule, rule },
            { fields.severity, severity },
            { fields.told, told },
        }
    end
    local goid, pid, process = comment:match("^goroutine (%d+) %(pid (%d+)%) of (.-): ")
    if goid then
        return { { fields.goid, goid }, { fields.pid, pid }, { fields.process, process } }
    end
    process, pid = comment:match("^(.*) %(pid (%d+)%), client of %S+$")
    if not process then
        process, pid = comment:match("^(.*) %(pid (%d+)%), server of %S+$")
    end
    if process then
        return { { fields.process, process }, { fields.pid, pid } }
    end
    return {}
end

-- What a row of ours says; nothing for entries of another journal.
local function parse_row()
    local found = {}
    local all_values = { values() }
    for place, name in ipairs({ names() }) do
        local field = row_fields[name.value]
        if field and all_values[place] then
            found[#found + 1] = { field, all_values[place].value }
        end
    end
    if #found > 0 then
        local pid, comm, text = journal_pid(), journal_comm(), message()
        if comm then
            found[#found + 1] = { fields.process, comm.value }
        end
        if pid then
            found[#found + 1] = { fields.pid, tostring(pid.value) }
        end
        if text then
            found[#found + 1] = { fields.told, text.value }
        end
    end
    return found
end

local function add(tree, found)
    for _, pair in ipairs(found) do
        local field, value = pair[1], pair[2]
        if field == fields.pid or field == fields.goid then
            value = number(field, value)
        end
        if value then
            tree:add(field, value)
        end
    end
end

function gopulse.dissector(buffer, pinfo, tree)
    local all = {}
    for _, comment in ipairs({ comments() }) do
        all[#all + 1] = parse(comment.value)
    end
    all[#all + 1] = parse_row()

    local subtree
    for _, found in ipairs(all) do
        if #found > 0 then
            subtree = subtree or tree:add(gopulse)
            add(subtree, found)
        end
    end
end

register_postdissector(gopulse)
