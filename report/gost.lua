-- The parts of the layout of GOST 7.32-2017 that Markdown has no words for, for DOCX, typst and HTML alike:
-- numbers of sections, appendices, figures, tables and formulas, cross-references (@fig:x, @tbl:x, @eq:x, @sec:x,
-- @app:x), contents, and the counts of the abstract. In DOCX numbers, references, counts and contents are fields.
--
-- Markdown's side of it: `# Heading {.unnumbered}` is a structural element (also `.unlisted`: not in the contents),
-- `# Heading {.appendix #app:x}` an appendix; `$$ … $$ {#eq:x}` alone in a paragraph a numbered formula;
-- `[]{.count of=figures}` a count (pages, figures, tables, sources, appendices); `::: toc` the contents;
-- `::: title-page` with `::: fill`, `::: signature` and `::: foot` in it the title page; `::: noindent` a paragraph
-- that begins at the margin; `.narrow` on a caption a table in smaller print. The metadata `pages` and `heading-pages`
-- hold what was counted in the laid out PDF.

local NBSP = "\u{a0}"
local LETTERS = { "А", "Б", "В", "Г", "Д", "Е", "Ж", "И", "К", "Л", "М", "Н" } -- no Ё, З, Й
local NAMES = { fig = "Рисунок", tbl = "Таблица", eq = "Формула" }
local PREFIXES = { fig = true, tbl = true, eq = true, app = true, sec = true }
local docx, typst, html = FORMAT == "docx", FORMAT:match("^typst") ~= nil, FORMAT:match("^html") ~= nil

-- label -> { number = as printed, field = what refers to it, sequence = what counts it, prefix and last = its parts }
local labels = {}
-- in order: { level, text, number, id, listed }
local headings = {}
local counts = { figures = 0, tables = 0, sources = 0, appendices = 0 }

local function raw(xml) return pandoc.RawInline("openxml", xml) end
local function raw_block(xml) return pandoc.RawBlock("openxml", xml) end
local function typ(code) return pandoc.RawInline("typst", code) end
local function typ_block(code) return pandoc.RawBlock("typst", code) end
local function styled(style, blocks) return pandoc.Div(blocks, { ["custom-style"] = style }) end
local function escaped(text) return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" })) end
local function run(text) return '<w:r><w:t xml:space="preserve">' .. escaped(text) .. "</w:t></w:r>" end

local function field(instruction, result)
  return '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText xml:space="preserve"> ' .. instruction
    .. ' </w:instrText></w:r><w:r><w:fldChar w:fldCharType="separate"/></w:r>' .. result
    .. '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
end

local last_bookmark = 10000
local function bookmarked(name, xml)
  last_bookmark = last_bookmark + 1
  return string.format('<w:bookmarkStart w:id="%d" w:name="%s"/>%s<w:bookmarkEnd w:id="%d"/>', last_bookmark, name, xml,
    last_bookmark)
end

local function around(name, inlines)
  last_bookmark = last_bookmark + 1
  local result = pandoc.Inlines { raw(string.format('<w:bookmarkStart w:id="%d" w:name="%s"/>', last_bookmark, name)) }
  result:extend(inlines)
  result:insert(raw(string.format('<w:bookmarkEnd w:id="%d"/>', last_bookmark)))
  return result
end

-- Word's names of bookmarks are letters, digits and underscores, at most 40.
local function bookmark(label) return (label:gsub("[^%w]", "_")):sub(1, 40) end

local function formula_label(paragraph)
  local content = paragraph.content
  if #content >= 2 and content[1].t == "Math" and content[1].mathtype == "DisplayMath" then
    return pandoc.utils.stringify(pandoc.Inlines { table.unpack(content, 2) }):match("^%s*{#(eq:[%w_-]+)}$")
  end
end

-- First pass, in the document's order: who has which number.

local sections, letter, sequences = { 0, 0, 0 }, nil, {}

local function count(label, kind)
  local prefix = label:match("^(%a+):")
  assert(not labels[label], "the label " .. label .. " is there twice")
  local sequence = NAMES[prefix] .. (letter and "_" .. letter or "")
  sequences[sequence] = (sequences[sequence] or 0) + 1
  local before = letter and letter .. "." or ""
  local last = sequences[sequence]
  labels[label] = { number = before .. last, field = "REF %s \\h", sequence = sequence, prefix = before, last = last }
  if kind then counts[kind] = counts[kind] + 1 end
end

local function count_heading(heading)
  local entry = { level = heading.level, id = heading.identifier, listed = not heading.classes:includes("unlisted") }
  entry.text = pandoc.utils.stringify(heading)
  if heading.classes:includes("appendix") then
    counts.appendices = counts.appendices + 1
    letter = LETTERS[counts.appendices]
    labels[heading.identifier] = { number = letter }
    entry.text = "ПРИЛОЖЕНИЕ " .. letter .. " " .. entry.text
  elseif heading.classes:includes("unnumbered") then
    entry.text = pandoc.text.upper(entry.text)
  else
    sections[heading.level] = sections[heading.level] + 1
    for level = heading.level + 1, #sections do sections[level] = 0 end
    entry.number = table.concat(sections, ".", 1, heading.level)
    if entry.id:match("^sec:") then labels[entry.id] = { number = entry.number, field = "REF %s \\r \\h" } end
  end
  headings[#headings + 1] = entry
end

local cited = {}
local numbering = {
  traverse = "topdown",
  Header = count_heading,
  Figure = function(figure) count(figure.identifier, "figures") end,
  Table = function(each) count(each.identifier, "tables") end,
  Para = function(paragraph)
    local label = formula_label(paragraph)
    if label then count(label) end
  end,
  Cite = function(cite)
    for _, citation in ipairs(cite.citations) do
      local id = citation.id
      if not PREFIXES[id:match("^(%a+):")] and not cited[id] then
        cited[id] = true
        counts.sources = counts.sources + 1
      end
    end
  end,
}

-- The number of a figure stays on the line of the word before it.
local function glued(inlines)
  for index = 2, #inlines do
    local cite = inlines[index]
    if cite.t == "Cite" and PREFIXES[cite.citations[1].id:match("^(%a+):")] and inlines[index - 1].t == "Space" then
      inlines[index - 1] = pandoc.Str(NBSP)
    end
  end
  return inlines
end

-- Second pass: the numbers in their places.

local pages, heading_pages = "", {}
local seen_headings = 0

local function toc_bookmark(index) return string.format("_Toc%08d", index) end

local function number_of(label)
  local known = assert(labels[label], "no such label: " .. label)
  if not docx or not known.sequence then return pandoc.Str(known.number) end
  local digits = field("SEQ " .. known.sequence .. " \\* ARABIC", run(tostring(known.last)))
  return raw(bookmarked(bookmark(label), (known.prefix ~= "" and run(known.prefix) or "") .. digits))
end

local function captioned(label, caption)
  local name = NAMES[label:match("^(%a+):")]
  local dash = pandoc.Str(NBSP .. "—")
  local inlines = pandoc.Inlines { pandoc.Str(name .. NBSP), number_of(label), dash, pandoc.Space() }
  inlines:extend(pandoc.utils.blocks_to_inlines(caption))
  return inlines
end

local function heading(element)
  seen_headings = seen_headings + 1
  local entry = headings[seen_headings]
  local content = element.content
  if element.classes:includes("appendix") then
    content = pandoc.Inlines { pandoc.Str("ПРИЛОЖЕНИЕ" .. NBSP .. labels[entry.id].number), pandoc.LineBreak() }
    content:extend(element.content)
    element.classes:insert("unnumbered")
  elseif element.classes:includes("unnumbered") then
    content = pandoc.Inlines { pandoc.Str(entry.text) }
  elseif html then
    content = pandoc.Inlines { pandoc.Str(entry.number .. NBSP) }
    content:extend(element.content)
  end
  element.content = content
  if not docx then return element end
  if entry.listed then content = around(toc_bookmark(seen_headings), content) end
  if labels[entry.id] then content = around(bookmark(entry.id), content) end
  element.content = content
  if entry.number then return element end
  local paragraph = pandoc.Para(content)
  return styled(entry.listed and "GOST Structural" or "GOST Structural Unlisted", { paragraph })
end

local function contents(document_blocks)
  if typst then return typ_block("#contents()") end
  if html then
    local list = pandoc.structure.table_of_contents(document_blocks, { toc_depth = 3 })
    return pandoc.Div({ list }, { class = "toc" })
  end
  local listed = {}
  for index, entry in ipairs(headings) do
    if entry.listed then listed[#listed + 1] = { entry = entry, anchor = toc_bookmark(index) } end
  end
  local paragraphs = {}
  for index, each in ipairs(listed) do
    local text = (each.entry.number and each.entry.number .. " " or "") .. each.entry.text
    local page = field("PAGEREF " .. each.anchor .. " \\h", run(heading_pages[index] or ""))
    local first = index == 1 and '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText xml:space="preserve">'
      .. ' TOC \\o "1-3" \\h \\z \\u </w:instrText></w:r><w:r><w:fldChar w:fldCharType="separate"/></w:r>' or ""
    local last = index == #listed and '<w:r><w:fldChar w:fldCharType="end"/></w:r>' or ""
    local link = string.format('<w:hyperlink w:anchor="%s">%s<w:r><w:tab/></w:r>%s</w:hyperlink>', each.anchor, run(text), page)
    local style = string.format('<w:pPr><w:pStyle w:val="toc%d"/></w:pPr>', each.entry.level)
    paragraphs[index] = "<w:p>" .. style .. first .. link .. last .. "</w:p>"
  end
  return raw_block(table.concat(paragraphs))
end

local function formula(paragraph)
  local label = formula_label(paragraph)
  if not label then return nil end
  local math = paragraph.content[1]
  if typst then
    return pandoc.Para { typ('#[#set math.equation(numbering: _ => "(' .. labels[label].number .. ')")\n'), math,
      typ(" <" .. label .. ">]") }
  elseif html then
    local number = pandoc.Span({ pandoc.Str("(" .. labels[label].number .. ")") }, { class = "number" })
    return pandoc.Div({ pandoc.Plain { math, number } }, { class = "formula", id = label })
  end
  local cell = '</w:tc><w:tc><w:tcPr><w:tcW w:w="%d" w:type="pct"/><w:vAlign w:val="center"/></w:tcPr>'
  return {
    raw_block('<w:tbl><w:tblPr><w:tblStyle w:val="GOSTFormulaTable"/><w:tblW w:w="5000" w:type="pct"/>'
      .. '<w:tblLayout w:type="fixed"/></w:tblPr>'
      .. '<w:tblGrid><w:gridCol w:w="935"/><w:gridCol w:w="7484"/><w:gridCol w:w="935"/></w:tblGrid>'
      .. '<w:tr><w:trPr><w:cantSplit/></w:trPr><w:tc><w:tcPr><w:tcW w:w="500" w:type="pct"/></w:tcPr>'
      .. '<w:p><w:pPr><w:pStyle w:val="GOSTFormula"/></w:pPr></w:p>' .. cell:format(4000)),
    styled("GOST Formula", { pandoc.Para { math } }),
    raw_block(cell:format(500)),
    styled("GOST Formula Number", { pandoc.Para { pandoc.Str("("), number_of(label), pandoc.Str(")") } }),
    raw_block("</w:tc></w:tr></w:tbl>"),
  }
end

local function figure(element)
  local caption = captioned(element.identifier, element.caption.long)
  if not docx then
    element.caption.long = { pandoc.Plain(caption) }
    return element
  end
  local picture = element.content[1].content[1]
  picture.src = picture.src:gsub("%.svg$", ".png") -- Word is given the picture that was made of an SVG
  picture.caption = {}
  picture.attributes.alt = pandoc.utils.stringify(element.caption.long)
  return { styled("GOST Figure", { pandoc.Para { picture } }), styled("GOST Figure Caption", { pandoc.Para(caption) }) }
end

local function gost_table(element)
  local caption = captioned(element.identifier, element.caption.long)
  local narrow = element.classes:includes("narrow")
  for _, cell in ipairs(element.head.rows[1].cells) do cell.alignment = "AlignCenter" end
  if typst then
    -- A row above the head, repeated with it, that is empty on the table's first page.
    local call = pandoc.Plain { typ('#continued("' .. labels[element.identifier].number .. '")') }
    local bare = pandoc.Attr("", {}, { ["typst:stroke"] = "none", ["typst:inset"] = "0pt" })
    local continued = pandoc.Cell({ call }, "AlignLeft", 1, #element.colspecs, bare)
    element.head.rows:insert(1, pandoc.Row { continued })
  end
  if not docx then
    element.caption.long = { pandoc.Plain(caption) }
    if typst and narrow then return { typ_block("#[#show table: set text(size: 10pt)"), element, typ_block("]") } end
    return element
  end
  element.caption.long = {}
  if narrow then
    element = element:walk {
      Plain = function(plain) return styled("GOST Narrow Cell", { pandoc.Para(plain.content) }) end,
    }
  end
  local gap = styled("GOST After Table", { pandoc.Para { pandoc.Str(NBSP) } })
  return { styled("GOST Table Caption", { pandoc.Para(caption) }), element, gap }
end

local function styled_list(list)
  -- A tight list has in pandoc the style of a table's cells.
  if not docx then return nil end
  for _, item in ipairs(list.content) do
    for index, block in ipairs(item) do
      if block.t == "Plain" then item[index] = styled("GOST List", { pandoc.Para(block.content) }) end
    end
  end
  return list
end

local function reference(cite)
  local id = cite.citations[1].id
  if not PREFIXES[id:match("^(%a+):")] then return nil end
  local known = assert(labels[id], "no such label: " .. id)
  if docx and known.field then return raw(field(known.field:format(bookmark(id)), run(known.number))) end
  return pandoc.Link({ pandoc.Str(known.number) }, "#" .. id)
end

local function counted(span)
  if not span.classes:includes("count") then return nil end
  local what = span.attributes.of
  if what ~= "pages" then return pandoc.Str(tostring(counts[what])) end
  if typst then return typ("#page-count()") end
  if docx then return raw(field("NUMPAGES", run(pages))) end
  return pandoc.Str(pages)
end

local DOCX_STYLES = { ["title-page"] = "GOST Title", signature = "GOST Title Signature", noindent = "GOST No Indent" }

-- A number and its unit stay together: typst would hyphenate the unit.
local function unbroken(text)
  if typst and text.text:find("%d" .. NBSP) then return { typ("#box["), text, typ("]") } end
end

local function division(div)
  local class = div.classes[1]
  if docx then
    if class == "fill" then return styled("GOST Title Gap", { pandoc.Para { pandoc.Str(NBSP) } }) end
    if class == "foot" then return {} end -- it is the footer of the first page
    if DOCX_STYLES[class] then return styled(DOCX_STYLES[class], div.content) end
  elseif typst then
    if class == "fill" then return typ_block("#v(1fr)") end
    if class == "title-page" or class == "signature" or class == "noindent" then
      local blocks = pandoc.Blocks { typ_block("#" .. class .. "[") }
      blocks:extend(div.content)
      blocks:insert(typ_block("]"))
      return blocks
    end
  end
end

local function with_contents(document)
  return document:walk {
    Div = function(div)
      if div.classes[1] == "toc" then return contents(document.blocks) end
    end,
  }
end

return {
  numbering,
  { Inlines = glued },
  {
    Meta = function(meta)
      pages = meta.pages and pandoc.utils.stringify(meta.pages) or ""
      for index, page in ipairs(meta["heading-pages"] or {}) do heading_pages[index] = pandoc.utils.stringify(page) end
    end,
  },
  {
    Header = heading,
    Figure = figure,
    Table = gost_table,
    Para = formula,
    BulletList = styled_list,
    OrderedList = styled_list,
    Cite = reference,
    Span = counted,
    Div = division,
    Str = unbroken,
  },
  { Pandoc = with_contents },
}
