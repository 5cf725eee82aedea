# nibble_table(NAME DEF MACRO): writes <NAME>, which includes <folder of DEF>/<name>.h for every row
# MACRO(id, name, type) of DEF, so that a new rule or format is one file and one row.
function(nibble_table out def macro)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${def})
  file(STRINGS ${PROJECT_SOURCE_DIR}/src/${def} rows REGEX "^${macro}\\(")
  get_filename_component(folder ${def} DIRECTORY)
  set(text "")
  foreach(row IN LISTS rows)
    string(REGEX REPLACE "^[A-Z_]+\\([0-9]+, ([a-z0-9_]+),.*" "\\1" name "${row}")
    string(APPEND text "#include \"${folder}/${name}.h\"\n")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/${out} CONTENT "${text}")
endfunction()

nibble_table(nibble_rule_files.inc math/rules/rules.def NIBBLE_RULE)
nibble_table(nibble_format_files.inc math/formats/formats.def NIBBLE_FORMAT)
nibble_table(nibble_weight_files.inc math/weights/weights.def NIBBLE_WEIGHTS)
